"""Variants: blocks that are left out in one program, and the forms that share it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sws_jax import specs
from sws_jax.errors import UserError
from sws_jax.models import loop
from sws_jax.models.outputs import TAPS
from sws_jax.specs import AuxViTSpec, Compute, StitchedSpec
from sws_jax.specs.levit import LEVITS
from sws_jax.specs.variants import Computation, computations

from support.compare import close, equal
from support.networks import TINY, aux_spec, logits_of, params_of

NET = specs.ViTSpec(depth=4, **{**TINY, "drop_path": 0.3})


def stitched(*depths):
    widths = NET, NET.replace(width=32, heads=4)
    pairs = zip(widths, depths, strict=True)
    return StitchedSpec(tuple(net.replace(depth=depth) for net, depth in pairs))


# Two variants, of which the first has the weights, and the lengths of their form.
FAMILIES = {
    "vit": (NET, NET.replace(depth=3)),
    "aux": (aux_spec((3, 1)), aux_spec((2, 2))),
    "stitched": (stitched(2, 3), stitched(1, 2)),
}
LENGTHS = {"vit": (4,), "aux": (3, 2), "stitched": (2, 3)}


def gradients(spec, compute, weights_of=lambda params: params):
    """A program: the gradient of logits and taps, and these.

    Args:
      spec: of the network.
      compute: how it is run.
      weights_of: its parameters, of those that the gradient is taken for.
    """
    module = spec.build(compute)

    def loss(params, images, keep, ranges, runs):
        variables = {"params": weights_of(params)}
        result = module.apply(variables, images, keep, TAPS, ranges)
        total = (result.logits**2).sum()
        for tap in result.taps.values():
            for values, run in zip(jax.tree.leaves(tap), runs, strict=True):
                total += (run * (values**2).mean(axis=(1, 2, 3))).sum()
        return total, result

    return jax.jit(jax.grad(loss, has_aux=True))


def first_blocks(variant):
    """A function: the weights of a variant, of those of the first."""

    def weights_of(params):
        if isinstance(variant, AuxViTSpec):
            return params  # A stage has one block, however often it is applied.
        lengths = {"blocks": variant.depth}
        if isinstance(variant, StitchedSpec):
            depths = [segment.depth for segment in variant.segments]
            lengths = {f"segment_{s}": depth for s, depth in enumerate(depths)}
        cut = {
            name: jax.tree.map(lambda leaf, n=length: leaf[:n], params[name])
            for name, length in lengths.items()
        }
        return {**params, **cut}

    return weights_of


@pytest.mark.parametrize("compute", [Compute(), Compute(remat=True, unroll=2)], ids=str)
@pytest.mark.parametrize("family", ["aux", "vit", "stitched"])
@pytest.mark.slow  # by default, test_picks has gradients of an Aux-Net's variants
def test_a_range_of_the_form_equals_the_variant(family, compute, images):
    (_, variant), lengths = FAMILIES[family], LENGTHS[family]
    first, second = computations(FAMILIES[family])
    params = params_of(first.form)
    ends = [end for _, end in second.ranges]
    by_segment = [np.arange(n) < end for n, end in zip(lengths, ends, strict=True)]
    runs = by_segment if family == "stitched" else [np.concatenate(by_segment)]
    whole = [run[run] for run in runs]
    keep = np.random.default_rng(3).uniform(0.5, 2, (sum(lengths), 2, len(images)))
    keep = keep.astype(np.float32)
    masks = keep[np.concatenate(by_segment)]
    plain = gradients(variant, Compute(), first_blocks(variant))
    expected_gradient, expected = plain(params, images, masks, None, whole)
    program = gradients(first.form, compute)
    program(params, images, keep, np.asarray(first.ranges), runs)
    ranges = np.asarray(second.ranges)
    gradient, result = program(params, images, keep, ranges, runs)
    assert program._cache_size() == 1
    close(expected_gradient, gradient, 2e-6)
    close(expected.logits, result.logits, 2e-6)
    for name in TAPS:
        taps = zip(jax.tree.leaves(result.taps[name]), runs, strict=True)
        run = [values[run] for values, run in taps]
        close(jax.tree.leaves(expected.taps[name]), run, 2e-6)


def test_a_block_that_is_left_out_returns_what_it_was_given(net, images):
    """Here the first block, too, which no form leaves out."""
    params, ranges = params_of(net), np.asarray([[1, 3]])
    apply = jax.jit(net.build().apply, static_argnames="taps")
    result = apply({"params": params}, images, taps=TAPS, ranges=ranges)
    middle = jax.tree.map(lambda leaf: leaf[1:3], params["blocks"])
    expected = apply({"params": params}, images, taps=TAPS, ranges=ranges * 0)
    blocks, attention = (np.asarray(result.taps[name]) for name in TAPS)
    equal(blocks[0], np.asarray(expected.taps["blocks"])[0])  # no block runs there
    equal(blocks[3], blocks[2])
    assert not attention[[0, 3]].any() and attention[[1, 2]].any(axis=(1, 2, 3)).all()
    two = {**params, "blocks": middle}
    close(logits_of(net.replace(depth=2), two, images), result.logits)


def test_the_backward_pass_keeps_no_copies_of_the_weights():
    """A condition would hand on those of each block."""
    spec = aux_spec((8,), width=128)
    params, image = params_of(spec), jnp.zeros((1, 8, 8, 1))

    def loss(params, ranges):
        logits = spec.build().apply({"params": params}, image, ranges=ranges)
        return (logits**2).sum()

    def bytes_of(ranges):
        compiled = jax.jit(jax.grad(loss)).lower(params, ranges).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    block = sum(leaf.nbytes for leaf in jax.tree.leaves(params["stage_0"]))
    assert bytes_of(np.asarray([[0, 8]])) < bytes_of(None) + 3 * block


def test_ranges_are_refused_where_they_do_not_fit(aux, images):
    variables = {"params": params_of(aux)}
    with pytest.raises(UserError, match=r"shape \(3, 2\), and got \(2, 2\)"):
        aux.build().apply(variables, images, ranges=[[0, 1], [0, 1]])
    with pytest.raises(UserError, match="LoopViT runs every block of aux_vit_w16h2"):
        loop.LoopViT(aux).apply(variables, images, ranges=[[0, 1]] * 3)


def test_variants_share_the_longest_form():
    first, second = aux_spec((1, 3)), aux_spec((2, 1))
    form, rates = aux_spec((2, 3)), [np.float32(rate) for rate in (0.1, 0.15, 0.2, 0.3)]
    assert computations([first, second]) == (
        Computation(form, ((0, 1), (0, 3)), (0.0, 0.0, rates[0], rates[2], rates[3])),
        Computation(form, ((0, 2), (0, 1)), (0.0, rates[1], rates[3], 0.0, 0.0)),
    )
    assert [c.spec for c in computations([first, second])] == [first, second]
    deep, shallow = NET, NET.replace(depth=2)
    assert computations([deep, shallow]) == (
        Computation(deep, ((0, 4),), tuple(deep.drop_path_rates)),
        Computation(deep, ((0, 2),), (*shallow.drop_path_rates, 0.0, 0.0)),
    )
    stitches = computations([stitched(3, 1), stitched(1, 2)])
    assert [computation.form for computation in stitches] == [stitched(3, 2)] * 2


def test_a_variant_that_is_its_form_is_run_as_it_is():
    wide = NET.replace(width=32)
    rates = tuple(NET.drop_path_rates)
    assert computations([NET, wide, NET]) == (
        Computation(NET, None, rates),
        Computation(wide, None, rates),
        Computation(NET, None, rates),
    )
    genes = [specs.ExpandedSpec(NET.replace(depth=n), (n,), "tleg") for n in (4, 2)]
    # Of two depths, all blocks of one are others than those of the other.
    alone = [Computation(spec, None, tuple(spec.drop_path_rates)) for spec in genes]
    assert computations(genes) == tuple(alone)


@pytest.mark.parametrize(
    "changes, sentence",
    [
        (dict(image_size=12), "same image_size, and .* has (12, 12), where .* (8, 8)"),
        (dict(channels=3), "same channels, and .* has 3, where .* has 1"),
        (dict(num_classes=4), "same num_classes, and .* has 4, where .* has 10"),
    ],
)
def test_variants_see_and_answer_the_same(changes, sentence):
    sentence = sentence.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(UserError, match=sentence):
        computations([NET, NET.replace(**changes)])


def test_a_variant_that_only_teaches_is_refused():
    with pytest.raises(UserError, match="levit_128s only teaches"):
        computations([LEVITS["levit_128s"]])
