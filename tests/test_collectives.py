"""Collectives of compiled programs, against text written by hand and small programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from sws_jax import sharding
from sws_jax.estimate import traffic

HEAD = "HloModule jit_run, is_scheduled=true, num_partitions=8\n"
LOOPS = (
    HEAD
    + """
%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%inner (p: (s32[], f32[4,2])) -> (s32[], f32[4,2]) {
  %x = f32[4,2]{1,0} get-tuple-element(%p), index=1
  %all-reduce.1 = f32[4,2]{1,0} all-reduce(%x), channel_id=1, replica_groups=[4,2]<=[8], to_apply=%add, metadata={op_name="jit(run)/inner"}
  ROOT %t = (s32[], f32[4,2]{1,0}) tuple(%i, %all-reduce.1)
}

%outer (p: (s32[], f32[4,2])) -> (s32[], f32[4,2]) {
  %w = (s32[], /*index=1*/f32[4,2]{1,0}) while(%p), condition=%c, body=%inner, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %s = f32[2,2]{1,0} reduce-scatter(%y), replica_groups={{0,1},{2,3},{4,5},{6,7}}, dimensions={0}, to_apply=%add
}

%asks (p: (s32[], f32[4,2])) -> pred[] {
  ROOT %any = pred[] all-reduce(%b), replica_groups={}, to_apply=%or
}

%wrapped (x: f32[4,2]) -> f32[4,2] {
  ROOT %a2a = f32[4,2]{1,0} all-to-all(%x), replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}
}

ENTRY %main (p: bf16[2,4]) -> bf16[4,4] {
  %begin = (bf16[2,4]{1,0}, bf16[4,4]{1,0}) all-gather-start(%p), replica_groups=[4,2]<=[8], dimensions={0}
  %end = bf16[4,4]{1,0} all-gather-done(%begin)
  %move = (f32[4]{0}, f32[4]{0}, u32[], u32[]) collective-permute-start(%q), source_target_pairs={{0,1},{1,0}}
  %moved = f32[4]{0} collective-permute-done(%move)
  %later = ((f32[4,2]{1,0}), f32[4,2]{1,0}) async-start(%z), calls=%wrapped
  %now = f32[4,2]{1,0} async-done(%later), calls=%wrapped
  %two = (f32[], s8[6]{0}) all-reduce(%m, %n), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  %w = (s32[], f32[4,2]{1,0}) while(%t), condition=%c, body=%outer, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %v = (s32[], f32[4,2]{1,0}) while(%t), condition=%asks, body=%c
}
"""  # noqa: E501
)


def test_loops_multiply_and_pairs_count_once():
    operations = [
        (one.kind, one.size, one.bytes, one.times, one.loops, one.counted, one.sent)
        for one in traffic.collectives(LOOPS)
    ]
    assert operations == [
        ("all-gather", 2, 32, 1, 0, True, 16),
        ("collective-permute", 8, 16, 1, 0, True, 16),
        ("all-to-all", 4, 32, 1, 0, True, 24),
        ("all-reduce", 8, 10, 1, 0, True, 17.5),
        ("all-reduce", 2, 32, 15, 2, True, 32),
        ("reduce-scatter", 2, 16, 5, 1, True, 16),
        ("all-reduce", 8, 1, 1, 1, False, 1.75),
    ]
    assert [one.source for one in traffic.collectives(LOOPS)][4] == "jit(run)/inner"


@pytest.mark.parametrize(
    "written, groups",
    [
        ("{{0,1},{2,3}}", ((0, 1), (2, 3))),
        ("[2,4]<=[8]", ((0, 1, 2, 3), (4, 5, 6, 7))),
        ("[2,4]<=[4,2]T(1,0)", ((0, 2, 4, 6), (1, 3, 5, 7))),
        ("mesh['a'=2,'b'=2] {'a'}", ((0, 2), (1, 3))),
        ("mesh['a'=2,'b'=2] {'a','b'}", ((0, 1, 2, 3),)),
        ("mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}", ((0, 1), (2, 3))),
        ("mesh['a'=1,'b'=2], device_ids=(1,0) {'b'}", ((1, 0),)),
        ("mesh['a'=8] {'a':(2)2}", ((0, 2), (1, 3), (4, 6), (5, 7))),
        ("{}", ()),
    ],
)
def test_groups_in_every_notation(written, groups):
    text = (
        f"{HEAD}ENTRY %main (p: f32[2]) -> f32[2] {{\n"
        f"  ROOT %r = f32[2]{{0}} all-reduce(%p), channel_id=1, "
        f"replica_groups={written}, to_apply=%add\n}}\n"
    )
    (one,) = traffic.collectives(text)
    assert one.groups == groups
    assert one.size == (len(groups[0]) if groups else 8)


def test_a_compiled_loop_counts_as_often_as_it_runs():
    """A sum over tensor for each of five rounds, and one gather at the end."""
    mesh = sharding.make_mesh(sizes=dict(data=2, fsdp=2, tensor=2))
    split, whole = (
        NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((None, "tensor"), ())
    )

    def run(x):
        def sum_up(total, _):
            row = jax.lax.with_sharding_constraint(total.sum(axis=1), whole)
            return total * row[:, None], None

        return jax.lax.scan(sum_up, x, None, length=5)[0]

    shape = jax.ShapeDtypeStruct((4, 8), jnp.float32, sharding=split)
    text = jax.jit(run, out_shardings=whole).lower(shape).compile().as_text()
    by_kind = {one.kind: one for one in traffic.collectives(text)}
    assert set(by_kind) == {"all-reduce", "all-gather"}
    reduced, gathered = by_kind["all-reduce"], by_kind["all-gather"]
    assert (reduced.times, reduced.loops, reduced.bytes) == (5, 1, 16)
    assert (gathered.times, gathered.loops, gathered.bytes) == (1, 0, 128)
    pairs = np.arange(8).reshape(4, 2).tolist()
    assert sorted(map(sorted, reduced.groups)) == pairs
    assert reduced.sent == 16 and gathered.sent == 64
