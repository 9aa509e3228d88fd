"""Networks of several widths: what they compute, and that they are used like others."""

import dataclasses
import functools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec

import sws_jax
from sws_jax import __main__ as tools
from sws_jax import convert, main, sharding, specs, trees
from sws_jax.errors import UserError
from sws_jax.estimate import flops
from sws_jax.jobs.load import load
from sws_jax.jobs.teacher import load_teacher
from sws_jax.methods import surgery
from sws_jax.models import loop, names, networks, vit
from sws_jax.specs import Compute, StitchedSpec
from sws_jax.training import step

from support.compare import close, equal
from support.digits import DIGITS, describe, network_of
from support.formulas import REMAT, block_flops, formula, patch_flops
from support.images import stacked
from support.networks import logits_of, params_of, stitched_spec
from support.steps import BATCH, no_key_bias, raw_batch, recipe_of

ROOT = pathlib.Path(__file__).parent.parent
SPEC = stitched_spec()
PARAMS = params_of(SPEC)
NAME = "stitched_w16h2_patch4_L2_w24h3_L1_w24h3_L1"


@pytest.fixture
def masks(images):
    """Of a training step."""
    rates = SPEC.drop_path_rates
    drawn = vit.drop_path_masks(jax.random.key(1), rates, len(images))
    assert not np.asarray(drawn)[2:].all()
    return drawn


# What it is.


def test_what_all_segments_share_is_the_networks():
    assert SPEC.name == NAME
    tiny, small = (specs.named(f"vit_{size}_patch16_L6") for size in ("tiny", "small"))
    named = StitchedSpec((tiny, small.replace(depth=7)))
    assert named.name == "stitched_tiny_patch16_L6_small_L7"
    assert (named.depth, named.family, named.trainable) == (13, "stitched", True)
    assert named.image_size == (224, 224)
    assert (named.channels, named.num_classes) == (3, 1000)
    assert (named.stem, named.tail) == (tiny, small.replace(depth=7))
    np.testing.assert_allclose(SPEC.drop_path_rates, [0.0, 0.1, 0.2, 0.3], rtol=1e-6)


def test_a_change_is_one_of_all_segments():
    changed = SPEC.replace(num_classes=7, image_size=16)
    assert {s.num_classes for s in changed.segments} == {7}
    assert changed.image_size == (16, 16)
    assert [s.width for s in changed.segments] == [16, 24, 24]
    assert SPEC.replace() == SPEC
    for field in ("depth", "width", "heads", "mlp_ratio"):
        with pytest.raises(UserError, match=f"each segment of {NAME} has a {field} of"):
            SPEC.replace(**{field: 2})
    with pytest.raises(UserError, match=f"all segments of {NAME} have .* another Stit"):
        SPEC.replace(segments=SPEC.segments[:1])


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(segments=()), "segments are empty"),
        (
            dict(segments=(SPEC.stem, SPEC.stem.replace(norm_eps=1e-5))),
            r"norm_eps of segments\[0\] is 1e-06 and of segments\[1\] 1e-05: "
            "segments differ in depth, width, heads, mlp_ratio alone",
        ),
        (dict(segments=SPEC.segments, family="vit"), "'stitched', and not 'vit'"),
        (dict(segments=(SPEC,)), r"segments\[0\] must be a ViTSpec"),
        (
            dict(segments=(SPEC.stem.replace(depth=1024), SPEC.tail)),
            "at most 1024, and is 1025",
        ),
    ],
)
def test_impossible_segments_are_refused(fields, words):
    with pytest.raises(UserError, match=words):
        StitchedSpec(**fields)


def test_it_survives_json():
    data = json.loads(json.dumps(specs.to_dict(SPEC)))
    assert data["family"] == "stitched"
    back = specs.from_dict(StitchedSpec, data)
    assert (back, hash(back)) == (SPEC, hash(SPEC))
    about = describe(kind="network", net=SPEC)
    again = sws_jax.Description.from_json(about.to_json())
    assert again == about and again.spec == SPEC
    data["segments"][1]["colour"] = "red"
    with pytest.raises(UserError, match="ViTSpec has no field colour"):
        specs.from_dict(StitchedSpec, data)


def test_what_is_made_for_one_width_refuses_it():
    with pytest.raises(UserError, match=f"{NAME} is no plain Vision Transformer"):
        _ = describe(kind="network", net=SPEC).vit
    images = np.zeros((1, 8, 8, 1), np.float32)
    with pytest.raises(UserError, match=f"plain ViTs and Aux-Nets, and {NAME} is"):
        loop.LoopViT(SPEC).apply({"params": PARAMS}, images)
    with pytest.raises(UserError, match="no network is named"):
        names.named(NAME, {})


# What it computes.


def test_layout_and_axes():
    """Segments stacked as blocks are; a map is split along one of its two widths."""
    boxed = networks.abstract_params(SPEC, boxed=True)
    assert set(boxed) == {
        *("patch_embed", "pos_embed", "norm", "head"),
        *(f"segment_{s}" for s in range(3)),
        *("stitch_0", "stitch_1"),
    }
    plain = nn.meta.unbox(boxed)
    assert plain["patch_embed"]["proj"]["kernel"].shape == (4, 4, 1, 16)
    assert plain["pos_embed"].shape == (1, 4, 16)
    assert plain["segment_0"]["mlp"]["fc1"]["kernel"].shape == (2, 16, 64)
    assert plain["segment_1"]["mlp"]["fc1"]["kernel"].shape == (1, 24, 48)
    assert plain["stitch_0"]["kernel"].shape == (16, 24)
    assert plain["stitch_1"]["bias"].shape == (24,)
    assert plain["head"]["kernel"].shape == (24, 10)
    mesh = sharding.make_mesh(sizes=dict(data=2, fsdp=2, tensor=2))
    places = trees.flatten(step.network_shardings(SPEC, mesh))
    expected = {
        "stitch_0/kernel": ("fsdp", None),
        "stitch_0/bias": ("fsdp",),
        "segment_2/attn/proj/kernel": (None, None, None, "fsdp"),  # three heads
        "segment_0/attn/qkv/kernel": (None, "fsdp", None, "tensor", None),
    }
    for name, axes in expected.items():
        assert places[name].spec == PartitionSpec(*axes), name
    assert trees.count(plain) == counted(SPEC)


def counted(spec):
    """Parameters by hand: those of the ViTs, without what the segments lack."""
    stem, tail = spec.stem, spec.tail
    ends = [
        formula(s) - formula(s.replace(depth=1)) + block
        for s, block in zip(spec.segments, map(of_block, spec.segments), strict=True)
    ]
    maps = sum(
        (a.width + 1) * b.width
        for a, b in zip(spec.segments, spec.segments[1:], strict=False)
    )
    patch = (stem.patch_size**2 * stem.channels + 1 + stem.tokens) * stem.width
    return sum(ends) + maps + patch + 2 * tail.width + (tail.width + 1) * 10


def of_block(spec):
    return formula(spec.replace(depth=2)) - formula(spec.replace(depth=1))


@jax.jit
def composed(params, images, masks):
    """Logits, from the parts of a ViT and two products."""
    compute = Compute()
    embed = vit.PatchEmbed(SPEC.stem, compute)
    x = embed.apply({"params": params["patch_embed"]}, images)
    x, number = x + params["pos_embed"], 0
    for s, segment in enumerate(SPEC.segments):
        if s:
            stitch = params[f"stitch_{s - 1}"]
            x = x @ stitch["kernel"] + stitch["bias"]
        for layer in range(segment.depth):
            own = jax.tree.map(lambda leaf, i=layer: leaf[i], params[f"segment_{s}"])
            keep = None if masks is None else masks[number]
            x, _ = vit.Block(segment, compute).apply({"params": own}, x, keep)
            number += 1
    norm = vit.layer_norm(SPEC.tail, compute, name="norm")
    x = norm.apply({"params": params["norm"]}, x).mean(axis=1)
    return x @ params["head"]["kernel"] + params["head"]["bias"]


def with_gradient(function, params):
    """Logits, and the gradient of their squares."""

    def loss(params):
        logits = function(params)
        return (logits**2).sum(), logits

    gradient, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
    return logits, gradient


def applied(images, masks, compute=None):
    module = SPEC.build(compute or Compute())
    return with_gradient(
        lambda params: module.apply({"params": params}, images, masks), PARAMS
    )


def test_it_is_its_parts_one_behind_the_other(images, masks):
    close(composed(PARAMS, images, None), logits_of(SPEC, PARAMS, images))
    logits, gradient = applied(images, masks)
    expected, slopes = with_gradient(lambda p: composed(p, images, masks), PARAMS)
    close(expected, logits)
    close(no_key_bias(slopes), no_key_bias(gradient), 1e-4)
    unmoved = [
        name
        for name, leaf in trees.flatten(no_key_bias(gradient)).items()
        if not np.abs(leaf).max() > 0
    ]
    assert unmoved == []


def test_segments_of_one_width_with_identities_between_are_one_vit(net, images):
    params = params_of(net)
    parts = StitchedSpec((net.replace(depth=3), net.replace(depth=1)))
    blocks = params["blocks"]
    ends = {k: v for k, v in params.items() if k != "blocks"}
    cut = {
        **ends,
        "segment_0": jax.tree.map(lambda leaf: leaf[:3], blocks),
        "stitch_0": {"kernel": np.eye(16, dtype="f4"), "bias": np.zeros(16, "f4")},
        "segment_1": jax.tree.map(lambda leaf: leaf[3:], blocks),
    }
    np.testing.assert_array_equal(parts.drop_path_rates, net.drop_path_rates)
    keep = vit.drop_path_masks(jax.random.key(0), net.drop_path_rates, len(images))
    whole = jax.jit(net.build().apply)({"params": params}, images, keep)
    close(whole, jax.jit(parts.build().apply)({"params": cut}, images, keep))


@pytest.mark.slow
def test_how_it_is_run_changes_neither_layout_nor_result(images, masks):
    compute = Compute(remat=True, unroll=9)
    drawn = jax.eval_shape(
        lambda: vit.init_params(SPEC.build(compute), jax.random.key(0))
    )
    assert trees.difference(networks.abstract_params(SPEC), drawn) == []
    close(applied(images, masks), applied(images, masks, compute))


def test_bfloat16_keeps_float32_parameters_and_logits(images):
    low = Compute(dtype="bfloat16")
    drawn = jax.eval_shape(lambda: vit.init_params(SPEC.build(low), jax.random.key(0)))
    assert {leaf.dtype for leaf in jax.tree.leaves(drawn)} == {jnp.dtype("float32")}
    logits = jax.jit(SPEC.build(low).apply)({"params": PARAMS}, images)
    assert logits.dtype == jnp.float32
    exact = logits_of(SPEC, PARAMS, images)
    error = float(jnp.abs(logits - exact).max() / jnp.abs(exact).max())
    assert 1e-4 < error < 5e-2  # it did compute in bfloat16, and not in less
    text = str(jax.make_jaxpr(SPEC.build(low).apply)({"params": PARAMS}, images))
    assert {*re.findall(r"(\w+)\[6,4,24\] = dot_general", text)} == {"bf16"}


def test_it_starts_as_other_networks_do():
    params = vit.init_params(SPEC.build(), jax.random.key(0))
    kernel = params["stitch_0"]["kernel"]
    assert float(kernel.std()) == pytest.approx(16**-0.5, rel=0.1)
    assert not params["stitch_1"]["bias"].any()
    one, other = (params[f"segment_{s}"]["mlp"]["fc1"]["kernel"] for s in (1, 2))
    assert not np.array_equal(one, other)


# What can be tapped and left out.


def test_taps_are_those_of_each_segment(images, masks):
    module = SPEC.build()
    wanted = ("blocks", "attention")
    tapped = jax.jit(functools.partial(module.apply, taps=wanted))
    outputs = tapped({"params": PARAMS}, images, masks)
    close(composed(PARAMS, images, masks), outputs.logits)
    for name in wanted:
        shapes = [part.shape for part in outputs.taps[name]]
        assert shapes == [(2, 6, 4, 16), (1, 6, 4, 24), (1, 6, 4, 24)]
    first, second, _ = outputs.taps["blocks"]
    stitch, own = PARAMS["stitch_0"], PARAMS["segment_1"]
    x = first[-1] @ stitch["kernel"] + stitch["bias"]
    block = vit.Block(SPEC.segments[1], Compute(), wanted)
    own = jax.tree.map(lambda leaf: leaf[0], own)
    x, taps = block.apply({"params": own}, x, masks[2])
    close(x, second[0])
    close(taps["attention"], outputs.taps["attention"][1][0])


def test_ranges_leave_blocks_of_segments_out(images, masks):
    """One program runs all of them; maps are applied whatever is left out."""
    module, compiled = SPEC.build(), []

    @jax.jit
    def logits(params, keep, ranges):
        compiled.append(None)
        return module.apply({"params": params}, images, keep, ranges=ranges)

    whole = np.array([[0, 2], [0, 1], [0, 1]])
    close(composed(PARAMS, images, masks), logits(PARAMS, masks, whole))
    fewer = StitchedSpec((SPEC.stem.replace(depth=1), *SPEC.segments[1:]))
    second = jax.tree.map(lambda leaf: leaf[1:], PARAMS["segment_0"])
    expected = logits_of(fewer, {**PARAMS, "segment_0": second}, images)
    ones = jnp.ones_like(masks)
    close(expected, logits(PARAMS, ones, whole + [[1, 0], [0, 0], [0, 0]]))
    without = logits(PARAMS, ones, np.array([[0, 2], [0, 0], [0, 1]]))
    params = jax.tree.map(np.array, PARAMS)
    own = params["segment_1"]
    for part in (own["attn"]["proj"], own["mlp"]["fc2"]):  # The block adds nothing.
        part.update(jax.tree.map(np.zeros_like, part))
    close(logits_of(SPEC, params, images), without)
    assert len(compiled) == 1
    with pytest.raises(UserError, match=r"have the shape \(3, 2\), and got \(1, 2\)"):
        module.apply({"params": PARAMS}, images, ranges=whole[:1])


# Training.


def trained(recipe, devices, sizes=None):
    """Losses of three steps, and the last state."""
    mesh = sharding.make_mesh(jax.devices()[:devices], sizes)
    shardings = step.state_shardings(recipe, mesh)
    state = jax.jit(lambda p: step.new_state(recipe, p), out_shardings=shardings)(
        jax.device_put(PARAMS, shardings.params)
    )
    losses = []
    for number in range(3):
        raw = sharding.to_global(mesh, BATCH, trees.to_host(raw_batch(number)))
        state, metrics = step.compiled_step(recipe, mesh)(
            state, jax.random.key(3), raw, np.float32(0.01), None
        )
        losses.append(float(metrics["loss"]))
    return losses, jax.tree.map(np.asarray, state)


@pytest.fixture(scope="module")
def on_one_device():
    return trained(recipe_of(SPEC), 1)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 8, 1)], ids=str)
def test_every_mesh_is_one_device(sizes, on_one_device):
    """Drop-path, mixup and cutmix on; accumulation in two parts."""
    losses, state = on_one_device
    recipe = dataclasses.replace(recipe_of(SPEC), accum_steps=2)
    named = dict(zip(sharding.AXES, sizes, strict=True))
    sharded, sharded_state = trained(recipe, 8, named)
    np.testing.assert_allclose(sharded, losses, rtol=2e-5)
    close(no_key_bias(state.params), no_key_bias(sharded_state.params), 1e-4)
    close(no_key_bias(state.ema), no_key_bias(sharded_state.ema), 1e-4)


def test_it_teaches(tmp_path):
    """As any file of a network; it resizes what it is shown."""
    spec = SPEC.replace(image_size=16)
    path = str(tmp_path / "teacher.safetensors")
    sws_jax.save_network(path, network_of(spec))
    teacher = load_teacher(path)
    small = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    large = jax.image.resize(small, (4, 16, 16, 1), "bicubic", antialias=True)
    logits = jax.jit(lambda x: teacher.logits(x, teacher.normalization))
    close(logits_of(spec, params_of(spec), large), logits(small))


def test_other_images_and_classes():
    """What tuning it asks of the first and of the last segment."""
    new = SPEC.replace(image_size=16, num_classes=3)
    like = PARAMS["norm"]["scale"]
    params = {
        **PARAMS,
        "pos_embed": surgery.resize_pos_embed(PARAMS["pos_embed"], SPEC.stem, new.stem),
        "head": surgery.fresh_head(new.tail, 0, like=like),
    }
    networks.check_params(sws_jax.Network(new, params))
    with pytest.raises(UserError, match=r"! pos_embed"):
        networks.check_params(sws_jax.Network(new, {**params, "pos_embed": like}))


# Files and commands.


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("stitched") / "net.safetensors"
    sws_jax.save_network(str(path), network_of(SPEC))
    return str(path)


def test_it_survives_a_file_bit_for_bit(file):
    network = sws_jax.load_network(file)
    assert (network.spec, network.description.net) == (SPEC, SPEC)
    equal(PARAMS, network.params)
    assert load(file)[0].spec == SPEC
    wrong = {**PARAMS, "stitch_0": {"kernel": PARAMS["stitch_0"]["kernel"]}}
    with pytest.raises(UserError, match="- stitch_0/bias"):
        networks.check_params(sws_jax.Network(SPEC, wrong))


def said(capsys, *argv):
    assert tools.main(list(map(str, argv))) == 0
    return capsys.readouterr().out


def test_it_is_described(file, capsys):
    text = said(capsys, "describe", file)
    assert re.search(rf"network +{NAME}\n", text)
    assert re.search(
        r"function +2 heads of 8, then 3 heads of 8, then 3 heads of 8, LayerNorm", text
    )
    assert re.search(r"initialises +a run of its own depth \(init.network\)", text)
    assert re.search(rf"segment_1.mlp.fc1 +{24 * 48 + 48:,}\n", text)


def test_it_is_evaluated_and_predicts(file, tmp_path, capsys):
    from PIL import Image

    rows = stacked(DIGITS.test)
    x = (rows["image"] / 255.0 - DIGITS.normalization.mean) / DIGITS.normalization.std
    scores = np.asarray(logits_of(SPEC, PARAMS, x.astype(np.float32)))
    hits = (scores.argmax(axis=1) == rows["label"]).mean()
    assert f" {hits:.2%} " in said(capsys, "evaluate", file)
    Image.fromarray(rows["image"][0][..., 0]).save(tmp_path / "digit.png")
    text = said(capsys, "predict", file, tmp_path / "digit.png", "--top", 1)
    assert DIGITS.class_names[int(scores[0].argmax())] in text


def test_it_is_tuned_by_a_run(file, tmp_path):
    config = f"--config={ROOT}/configs/scratch_deit.py"
    fields = {
        "init.network": file,
        "schedule.total_epochs": 2 * 64 / 1257,
        "schedule.warmup_epochs": 0.0,
        "mesh.fsdp": 2,
        "compute.remat": False,
    }
    argv = [f"--config.{name}={value}" for name, value in fields.items()]
    assert main.main([config, f"--workdir={tmp_path}", *argv]) == 0
    (weights,) = tmp_path.glob("*/weights.safetensors")
    tuned = sws_jax.load_network(str(weights))
    assert tuned.spec.replace(drop_path=SPEC.stem.drop_path) == SPEC
    for name, leaf in trees.flatten(tuned.params).items():  # All of it was trained.
        assert not np.array_equal(trees.flatten(PARAMS)[name], leaf), name


@pytest.mark.parametrize("to", ["timm", "hugging-face", "flax", "flax-stacked"])
def test_no_other_program_has_it(to, tmp_path):
    target = str(tmp_path / "out.safetensors")
    with pytest.raises(UserError, match=f"{NAME} cannot be written for other programs"):
        convert.save(target, network_of(SPEC), to)


# Costs.


def test_forward_and_step_by_hand():
    blocks = [s.depth * block_flops(s) for s in SPEC.segments]
    maps = 2 * SPEC.stem.tokens * (16 * 24 + 24 * 24)
    head = 2 * 24 * 10
    patch = patch_flops(SPEC.stem)
    forward = patch + sum(blocks) + maps + head
    assert flops.params(SPEC) == counted(SPEC)
    assert flops.forward_flops(SPEC) == forward
    assert flops.step_flops(SPEC) == 3 * forward - patch
    last = [2 * s.depth * s.tokens * s.width * s.hidden for s in SPEC.segments]
    added = flops.step_flops(SPEC, REMAT) - flops.step_flops(SPEC)
    assert added == sum(blocks) - sum(last)


@pytest.mark.slow
def test_activations_by_the_byte():
    """Those of one segment are a ViT's; a block more keeps its input alone where the
    largest block is computed again."""
    one, pair = StitchedSpec((SPEC.stem,)), StitchedSpec((SPEC.stem, SPEC.tail))
    bytes_of = functools.partial(flops.activation_bytes, compute=REMAT)
    assert bytes_of(one) == bytes_of(SPEC.stem)
    deeper = StitchedSpec((SPEC.stem, SPEC.tail.replace(depth=2)))
    assert bytes_of(deeper) - bytes_of(pair) == 4 * SPEC.tail.tokens * SPEC.tail.width
    assert bytes_of(pair) < flops.activation_bytes(pair)


def test_the_cost_of_a_file(file, capsys):
    text = said(capsys, "cost", file)
    row = text.splitlines()[2].split()
    mebibytes = flops.activation_bytes(SPEC) / 2**20
    assert row[:2] == [NAME, f"{flops.params(SPEC):,}"]
    assert float(row[2]) * 1e9 == pytest.approx(flops.forward_flops(SPEC), rel=1e-3)
    assert float(row[3]) * 1e9 == pytest.approx(flops.step_flops(SPEC), rel=1e-3)
    assert float(row[4]) == pytest.approx(mebibytes, rel=1e-3)
