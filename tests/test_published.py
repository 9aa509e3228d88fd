"""Against the published code's networks and training, as PyTorch computes them."""

import argparse
import dataclasses
import functools
import importlib
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import make_published

import sws_jax
from sws_jax import __main__ as tools
from sws_jax import convert, specs, trees
from sws_jax.convert import tensors
from sws_jax.errors import UserError
from sws_jax.methods import learngenes, surgery
from sws_jax.methods.objectives import Loss
from sws_jax.models import networks
from sws_jax.models.outputs import Outputs
from sws_jax.pixels import Normalization
from sws_jax.training import optim, step

from support.networks import logits_of as apply

ALPHAS, DECAYS = make_published.ALPHAS, make_published.DECAYS
HEADS, STAGES = make_published.TRAIN["heads"], make_published.TRAIN["stages"]
WIDTH = make_published.TRAIN["width"]
NET = specs.ViTSpec(
    depth=sum(STAGES),
    width=WIDTH,
    heads=HEADS,
    patch_size=make_published.PATCH,
    image_size=make_published.IMAGE_SIZE,
    num_classes=make_published.CLASSES,
    norm_eps=make_published.AUX_EPS,
)
SPEC = specs.AuxViTSpec(NET, STAGES)
PUBLISHED = functools.partial(Loss, kind="soft", tau=1.0, reduction="per_class")


@pytest.fixture(scope="module")
def golden():
    return make_published.load()


def ours(state):
    """The parameter tree of an Aux-Net, from tensors by their published names."""

    def linear(name):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return {"kernel": weight.T, "bias": bias}

    def norm(name):
        return {"scale": state[f"{name}.weight"], "bias": state[f"{name}.bias"]}

    def stage(s):
        qkv = linear(f"blocks.block.attn.qkv.instances.{s}")
        proj = linear(f"blocks.block.attn.proj.instances.{s}")
        size = WIDTH // HEADS
        return {
            "norm1": norm(f"blocks.block.norm1.instances.{s}"),
            "attn": {
                "qkv": {
                    "kernel": qkv["kernel"].reshape(WIDTH, 3, HEADS, size),
                    "bias": qkv["bias"].reshape(3, HEADS, size),
                },
                "proj": {
                    "kernel": proj["kernel"].reshape(HEADS, size, WIDTH),
                    "bias": proj["bias"],
                },
            },
            "norm2": norm(f"blocks.block.norm2.instances.{s}"),
            "mlp": {
                "fc1": linear(f"blocks.block.mlp.fc1.instances.{s}"),
                "fc2": linear(f"blocks.block.mlp.fc2.instances.{s}"),
            },
        }

    patches = state["patch_embed.proj.weight"].transpose(2, 3, 1, 0)
    return {
        "patch_embed": {
            "proj": {"kernel": patches, "bias": state["patch_embed.proj.bias"]}
        },
        "pos_embed": state["pos_embed"],
        **{f"stage_{s}": stage(s) for s in range(len(STAGES))},
        "norm": norm("norm"),
        "head": linear("head"),
    }


def params_of(golden, key):
    return ours(make_published.read_state(golden, key))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Recorded:
    """In place of a `Predictor`: the logits that the file has for one batch.

    The published losses are of logits that were drawn, and no network returns.
    """

    logits: jax.Array  # [batch, classes]

    def outputs(self, images, normalization, taps):
        assert len(images) == len(self.logits) and not taps
        return Outputs(self.logits)


def batches(golden):
    """Each batch of the file, and what teaches it."""
    rows = zip(
        golden["images"].astype(np.float32),
        golden["targets"],
        golden["teacher_logits"],
        strict=True,
    )
    return [(step.Batch(images, y), Recorded(logits)) for images, y, logits in rows]


class Trained(NamedTuple):
    losses: np.ndarray
    params: dict
    ema: dict


def train(golden, loss, decay=DECAYS[0]):
    """All steps of the file with `step.train_step`."""
    grey = Normalization((0.5,) * 3, (0.5,) * 3)  # inputs are normalised already
    recipe = step.Recipe(SPEC, grey, loss=loss, ema=decay)
    one = jax.jit(functools.partial(step.train_step, recipe))
    params = jax.tree.map(jnp.asarray, params_of(golden, "train/initial"))
    state, losses = jax.jit(step.new_state, static_argnums=0)(recipe, params), []
    for (batch, teacher), rate in zip(batches(golden), golden["rates"], strict=True):
        state, metrics = one(state, batch, rate, teacher)
        losses.append(metrics["loss"])
    return Trained(np.array(losses), state.params, state.ema)


def errors(params, golden, key):
    """Largest difference in every tensor from a state of the file."""
    params, theirs = trees.flatten(params), trees.flatten(params_of(golden, key))
    assert set(params) == set(theirs)
    return {k: float(np.abs(params[k] - theirs[k]).max()) for k in theirs}


def show(what, params, golden, key):
    """Without biases of keys, where Adam follows rounding alone; see `draw_train`."""
    theirs = params_of(golden, key)
    keys, others = [], []
    for s in range(len(STAGES)):
        a, b = (tree[f"stage_{s}"]["attn"]["qkv"]["bias"] for tree in (params, theirs))
        gaps = np.abs(a - b).max(axis=(1, 2))
        keys.append(gaps[1])
        others += [gaps[0], gaps[2]]
    rest = errors(params, golden, key)
    others += [value for name, value in rest.items() if not name.endswith("qkv/bias")]
    print(f"{what}: {max(others):.1e}, biases of keys {max(keys):.1e}")


def test_logits_before_training(golden):
    batch, _ = batches(golden)[0]
    logits = apply(SPEC, params_of(golden, "train/initial"), batch.images)
    assert golden["train/logits"].std(axis=0).mean() > 0.05
    np.testing.assert_allclose(logits, golden["train/logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "alpha, decay",
    [
        (0.5, 0.9),
        (1.0, 0.99996),
        pytest.param(1.0, 0.9, marks=pytest.mark.slow),  # each of them is above
    ],
)
def test_ten_steps(alpha, decay, golden):
    """Losses, weights and moving average, keys' biases included (`draw_train`).

    At the published decay ten steps hardly move the average: what holds there is
    little, and the other decay is for that.
    """
    key = f"train/{alpha}"
    trained = train(golden, PUBLISHED(alpha=alpha), decay)
    gap = np.abs(trained.losses - golden[f"{key}/losses"]).max()
    weights = errors(trained.params, golden, f"{key}/weights")
    ema = errors(trained.ema, golden, f"{key}/ema/{decay}")
    print(f"\nalpha {alpha}, losses: {gap:.1e}")
    show("weights", trained.params, golden, f"{key}/weights")
    show(f"EMA at {decay}", trained.ema, golden, f"{key}/ema/{decay}")
    assert gap < 1e-5
    assert max(weights.values()) < 1e-4
    assert max(ema.values()) < 1e-4
    # Neither the initial weights nor the weights in place of the average would pass.
    start = params_of(golden, "train/initial")
    assert min(errors(start, golden, f"{key}/weights").values()) > 1e-3
    if decay == DECAYS[0]:
        assert min(errors(start, golden, f"{key}/ema/{decay}").values()) > 5e-4
        assert min(errors(trained.params, golden, f"{key}/ema/{decay}").values()) > 5e-4


@pytest.mark.slow
def test_another_reduction_is_noticed(golden):
    """By the weights too, where alpha leaves the labels in (`test_losses_alone`)."""
    trained = train(golden, PUBLISHED(alpha=0.5, reduction="batchmean"))
    assert np.abs(trained.losses - golden["train/0.5/losses"]).min() > 1e-2
    differences = errors(trained.params, golden, "train/0.5/weights")
    assert min(differences.values()) > 1e-4


def test_decay_of_everything_is_noticed(golden, monkeypatch):
    """Each tensor that is not decayed in the published code differs."""
    names = trees.flatten(params_of(golden, "train/initial"))
    bare = [name for name in names if not optim.decays(name)]
    monkeypatch.setattr(optim, "decays", lambda name: True)
    trained = train(golden, PUBLISHED(alpha=0.5))
    differences = errors(trained.params, golden, "train/0.5/weights")
    assert len(bare) == 5 + len(STAGES) * 8
    assert min(differences[name] for name in bare) > 1e-4


@pytest.mark.parametrize("number, alpha", list(enumerate(ALPHAS)))
def test_losses_alone(number, alpha, golden):
    """At both temperatures, and written out in float64.

    Adam takes no notice of a factor: with alpha 1 the weights tell one reduction from
    the other hardly at all, and the loss does.
    """
    batch, teacher = batches(golden)[0]
    logits = golden["train/logits"]

    def log_softmax(x):
        x = x.astype(np.float64)
        return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))

    def exact(tau):
        p, q = (log_softmax(x / tau) for x in (teacher.logits, logits))
        divergence = tau**2 * (np.exp(p) * (p - q)).mean()
        labels = -(batch.targets * log_softmax(logits)).sum(axis=-1).mean()
        return alpha * divergence + (1 - alpha) * labels

    inputs = [jnp.asarray(x) for x in (logits, batch.targets, teacher.logits)]
    for tau, value in (
        (1.0, golden[f"train/{alpha}/losses"][0]),
        (3.0, golden["train/tau3"][number]),
    ):
        assert abs(exact(tau) - value) < 1e-6
        assert abs(PUBLISHED(alpha=alpha, tau=tau).of(*inputs) - value) < 1e-6
        other = PUBLISHED(alpha=alpha, tau=tau, reduction="batchmean")
        assert abs(other.of(*inputs) - value) > 0.1


def test_what_the_file_tells_apart(golden):
    """Ways, depths and images differ by far more than any tolerance."""
    plans = make_published.PLANS
    sws = {
        way: np.stack([golden[f"sws/des/{way}/{depth}"] for depth in plans])
        for way in make_published.WAYS
    }
    tleg = {way: golden[f"tleg/des/{way}"] for way in make_published.WAYS}
    for layout in (sws, tleg):
        same, timm, published = (layout[way] for way in ("same", "timm", "published"))
        assert np.abs(same - timm).max(axis=(1, 2)).min() > 3e-3
        assert np.abs(timm - published).max(axis=(1, 2)).min() > 3e-3
        assert np.abs(np.diff(published, axis=0)).max(axis=(1, 2)).min() > 3e-3
        assert published.std(axis=1).mean() > 0.1
    for depth, plan in plans.items():
        assert tuple(golden[f"sws/plan/{depth}"]) == plan
    depths = make_published.DEPTHS
    assert depths == tuple(range(3, 17)) and len(tleg["same"]) == len(depths)
    # The Aux-Net's own depth and function, in timm.
    for aux, des in (
        ("sws/logits", golden["sws/des/same/16"]),
        ("tleg/logits", tleg["same"][depths.index(make_published.TLEG["layers"])]),
    ):
        np.testing.assert_allclose(des, golden[aux], rtol=0, atol=1e-5)


# Published files, through `convert` and `expand`.


def converted(golden, key, folder, stages=(), **changes):
    """The learngene of an Aux-Net that is written here as a published file."""
    path = str(folder / "aux.npz")
    np.savez(path, **make_published.read_state(golden, key))
    heads = dict(sws=make_published.SWS, tleg=make_published.TLEG)[key.split("/")[0]]
    return convert.load(path, stages=stages, heads=heads["heads"], **changes)[0]


def logits_of(network, golden):
    images = golden["images"][0].astype(np.float32)
    return apply(network.spec, network.params, images)


def apart(network, heads):
    """The same numbers in other heads, as the released Des-S has those of Aux-S."""
    spec = network.spec.replace(heads=heads)
    blocks = surgery.split_heads(network.params["blocks"], spec)
    return networks.Network(spec, {**network.params, "blocks": blocks})


def test_a_published_sws_file(golden, tmp_path):
    """The Aux-Net, and descendants as its authors made them and as we would."""
    stages = make_published.SWS["stages"]
    gene = converted(golden, "sws/state", tmp_path, stages)
    about = gene.description
    assert (about.method, about.profile, about.stages) == ("sws", "official", stages)
    aux = learngenes.auxiliary(gene)
    np.testing.assert_allclose(logits_of(aux, golden), golden["sws/logits"], atol=1e-5)
    other = converted(golden, "sws/state", tmp_path, stages, profile="consistent")
    for depth in make_published.PLANS:
        plan = tuple(golden[f"sws/plan/{depth}"])
        descendant = sws_jax.expand(gene, plan=plan)
        if depth in (12, 16):  # the two that are published
            assert sws_jax.expand(gene, depth=depth).plan == plan
        ways = {
            "timm": descendant,
            "published": apart(descendant, make_published.SWS["des_heads"]),
            "same": sws_jax.expand(other, plan=plan),
        }
        for way, network in ways.items():
            theirs = golden[f"sws/des/{way}/{depth}"]
            ours = logits_of(network, golden)
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "depth",
    [
        depth if depth in (3, 12, 16) else pytest.param(depth, marks=pytest.mark.slow)
        for depth in make_published.DEPTHS
    ],
)
def test_a_published_tleg_file(depth, golden, tmp_path):
    gene = converted(golden, "tleg/state", tmp_path)
    assert (gene.description.method, gene.description.stages) == ("tleg", (12,))
    if depth == 12:
        aux = logits_of(learngenes.auxiliary(gene), golden)
        np.testing.assert_allclose(aux, golden["tleg/logits"], rtol=0, atol=1e-5)
    other = converted(golden, "tleg/state", tmp_path, profile="consistent")
    descendant = sws_jax.expand(gene, depth=depth)
    ways = {
        "timm": descendant,
        "published": apart(descendant, make_published.TLEG["des_heads"]),
        "same": sws_jax.expand(other, depth=depth),
    }
    for way, network in ways.items():
        theirs = golden[f"tleg/des/{way}"][make_published.DEPTHS.index(depth)]
        ours = logits_of(network, golden)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "key, stages", [("sws/state", (3, 3, 4, 3, 3)), ("tleg/state", ())]
)
def test_published_files_there_and_back(key, stages, golden, tmp_path):
    """Bitwise, and so are the transferred tensors under timm's names."""
    gene = converted(golden, key, tmp_path, stages)
    path = str(tmp_path / "back.safetensors")
    convert.save(path, gene, "published")
    # The released code's start of such networks is not in the file.
    assert gene.description.vit.patch_bias_init == "uniform"
    state = make_published.read_state(golden, key)
    back = tensors.read(path).flat
    assert back.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(back[name], array)
    known = {"heads": gene.description.vit.heads}
    again, layout = convert.load(path, stages=stages, **known)
    assert layout.method == gene.description.method
    if key == "sws/state":
        convert.save(str(tmp_path / "des"), sws_jax.expand(gene, depth=12), "timm")
        flat = tensors.read(str(tmp_path / "des" / "model.safetensors")).flat
        for layer, stage in enumerate(golden["sws/plan/12"]):
            theirs = state[f"blocks.block.mlp.fc2.instances.{stage}.weight"]
            np.testing.assert_array_equal(
                flat[f"blocks.{layer}.mlp.fc2.weight"], theirs
            )
        np.testing.assert_array_equal(flat["fc_norm.weight"], state["norm.weight"])


def test_a_tleg_learngene_through_the_commands(golden, tmp_path, capsys):
    """Described, converted, described again, counted, and written under its names."""
    path, gene = str(tmp_path / "aux.npz"), str(tmp_path / "gene.safetensors")
    back, folder = str(tmp_path / "back.npz"), str(tmp_path / "des")
    state = make_published.read_state(golden, "tleg/state")
    np.savez(path, **state)
    stored = sum(array.size for array in state.values())
    for argv, words in (
        (["describe", path], "network +a block as base and slope\n"),
        (
            ["convert", path, gene, "--heads", "4"],
            "TLEG Aux-Net, learngene of tleg_vit_w",
        ),
        (["describe", gene], "method +tleg, profile official\n"),
        (["cost", gene], f"vit_w12h4_patch4_L12 +{stored:,} "),
        (
            ["convert", gene, back, "--to", "published"],
            "stages 12, profile official\n  4 heads of 3",
        ),
        (["convert", gene, folder, "--to", "timm", "--depth", "5"], "_L5, written"),
    ):
        assert tools.main(argv) == 0
        assert re.search(words, capsys.readouterr().out), argv
    again = tensors.read(back).flat
    assert all(np.array_equal(again[name], array) for name, array in state.items())


def test_published_files_need_their_stages(golden, tmp_path):
    for stages in ((), (3, 3)):
        with pytest.raises(UserError, match="5 shared blocks.*give 5 of them as --sta"):
            converted(golden, "sws/state", tmp_path, stages)


# Against PyTorch and timm themselves, where they are installed.

live = pytest.mark.slow
quiet = pytest.mark.filterwarnings("ignore")  # theirs are not ours to mend


@pytest.fixture
def torch(with_timm):
    return importlib.import_module("torch")


@live
@quiet
def test_live_file(golden, torch):
    """The script makes this file: inputs bit for bit, results but for rounding."""
    content = make_published.make()
    assert set(content) == set(golden)
    for key, value in content.items():
        assert (key, value.shape) == (key, golden[key].shape)
        if key == "versions":
            continue
        parts = key.split("/")
        weights = "weights" in parts or "ema" in parts
        if weights or parts[-1] in ("losses", "logits", "tau3") or "des" in parts:
            tolerance = 1e-4 if weights else 1e-5
            np.testing.assert_allclose(value, golden[key], rtol=0, atol=tolerance)
        else:
            np.testing.assert_array_equal(value, golden[key], err_msg=key)


@live
@quiet
@pytest.mark.parametrize("alpha", ALPHAS)
def test_live_rounding(alpha, torch):
    """Float64 is within half the tolerances, keys' biases included (`draw_train`)."""
    initial, inputs = make_published.draw_train(1), make_published.draw_inputs(0)
    rough = make_published.train(initial, inputs, alpha)
    exact = make_published.train(initial, inputs, alpha, "float64")
    np.testing.assert_allclose(rough[0], exact[0], rtol=0, atol=5e-6)
    pairs = [(rough[1], exact[1]), *((rough[2][d], exact[2][d]) for d in DECAYS)]
    for rounded, expected in pairs:
        gaps = [np.abs(rounded[name] - expected[name]).max() for name in expected]
        print(f"\n{max(gaps):.1e}")
        assert max(gaps) < 5e-5


@live
@quiet
@pytest.mark.parametrize("stages", [(1, 1, 1), (2, 1, 2)])
def test_live_aux_net_is_timms(stages, torch):
    """Logits and gradients in float64; shared, a gradient is the sum over copies."""
    drawn = make_published.draw_sws(5, WIDTH, stages)
    state = make_published.to_torch(drawn, "float64")
    images = make_published.to_torch(make_published.draw_inputs(6), "float64")["images"]
    for values in state.values():
        values.requires_grad_()
    plan = make_published.plan_of(stages)
    blocks = make_published.sws_blocks(state, plan)
    logits = make_published.aux_logits(state, blocks, images[0], HEADS)
    model = make_published.des_net(
        state, blocks, "same", width=WIDTH, heads=HEADS, des_heads=HEADS
    )
    theirs = make_published.timm_logits(model, images[0])
    torch.testing.assert_close(logits, theirs, rtol=0, atol=1e-10)
    logits.square().sum().backward()
    theirs.square().sum().backward()
    gradients = {k: v.grad for k, v in model.named_parameters()}
    compared = 0
    for name in make_published.rest_shapes(WIDTH):
        torch.testing.assert_close(state[name].grad, gradients.pop(name))
        compared += 1
    for s in range(len(stages)):
        for name in make_published.block_shapes(WIDTH):
            copies = [
                gradients.pop(f"blocks.{layer}.{name}")
                for layer, stage in enumerate(plan)
                if stage == s
            ]
            gradient = state[make_published.sws_name(name, s)].grad
            torch.testing.assert_close(gradient, sum(copies), rtol=1e-8, atol=1e-10)
            compared += 1
    assert compared == len(state) and not gradients


@live
@quiet
def test_live_tleg_is_timms(torch):
    fields = {k: make_published.TLEG[k] for k in ("width", "heads", "des_heads")}
    drawn = make_published.draw_tleg(5, fields["width"])
    state = make_published.to_torch(drawn, "float64")
    images = make_published.to_torch(make_published.draw_inputs(6), "float64")["images"]
    for depth in (3, 12):
        blocks = make_published.tleg_blocks(state, depth)
        logits = make_published.aux_logits(state, blocks, images[0], fields["heads"])
        model = make_published.des_net(state, blocks, "same", **fields)
        theirs = make_published.timm_logits(model, images[0])
        torch.testing.assert_close(logits, theirs, rtol=0, atol=1e-10)
        stored = make_published.sws_name("attn.qkv.weight", 0)
        base, slope = (state[f"{stored}_{part}"] for part in ("base", "ilayer"))
        for layer, expected in ((0, base), (depth - 1, base + slope - slope / depth)):
            weight = model.state_dict()[f"blocks.{layer}.attn.qkv.weight"]
            torch.testing.assert_close(weight, expected, rtol=0, atol=1e-12)


@live
@quiet
def test_live_from_a_released_checkpoint_to_timm(torch, tmp_path, capsys):
    """An Aux-S as released goes in; twelve layers come out, under timm's names.

    12 heads in the Aux-Net, 6 in the descendant; every step's logits are PyTorch's.
    """
    stages = (3, 3, 4, 3, 3)
    drawn = make_published.draw_sws(0, 384, stages)
    state = make_published.to_torch(drawn)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    images = torch.tensor(x)
    plan = make_published.plan_of((3, 3, 2, 2, 2))
    with torch.no_grad():
        blocks = make_published.sws_blocks(state, make_published.plan_of(stages))
        aux = make_published.aux_logits(state, blocks, images, 12).numpy()
        transferred = make_published.des_net(
            state,
            make_published.sws_blocks(state, plan),
            "published",
            width=384,
            heads=12,
            des_heads=6,
        )
        descendant = make_published.timm_logits(transferred, images).numpy()

    released, gene, folder = (
        str(tmp_path / name) for name in ("aux.pth", "gene.safetensors", "des")
    )
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])
    torch.save(
        {
            "model": state,
            "optimizer": optimizer.state_dict(),
            "epoch": 149,
            "args": argparse.Namespace(lr=5e-4, data_set="IMNET"),
        },
        released,
    )
    assert tools.main(["describe", released]) == 0
    assert "SWS Aux-Net" in capsys.readouterr().out
    command = ["convert", released, gene, "--stages", "3-3-4-3-3"]
    assert tools.main(command) == 0
    assert "learngene of aux_vit_w384h12_patch4_3-3-4-3-3" in capsys.readouterr().out
    command = ["convert", gene, folder, "--to", "timm", "--depth", "12"]
    assert tools.main(command) == 0
    timm = make_published.import_timm()
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    theirs = transferred.state_dict()
    assert loaded.state_dict().keys() == theirs.keys()
    assert all(torch.equal(v, theirs[k]) for k, v in loaded.state_dict().items())

    learngene = sws_jax.load_learngene(gene)
    logits = {
        "the Aux-Net": (learngenes.auxiliary(learngene), aux),
        "its descendant": (sws_jax.expand(learngene, depth=12), descendant),
    }
    for name, (network, expected) in logits.items():
        ours = apply(network.spec, network.params, x)
        worst = np.abs(ours - expected).max()
        with capsys.disabled():
            print(f"\n{name}: {worst:.1e}, std {expected.std():.2f}", end="")
        assert worst < 1e-4
    with torch.no_grad():
        again = make_published.timm_logits(loaded, images).numpy()
    np.testing.assert_array_equal(again, descendant)
