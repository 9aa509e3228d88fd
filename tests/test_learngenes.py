"""Extraction and expansion of learngenes: plans, identities, and refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import sws_jax
from sws_jax import sharding, specs, trees
from sws_jax.errors import UserError
from sws_jax.estimate import traffic
from sws_jax.methods import learngenes, surgery, sws
from sws_jax.models import networks, vit
from sws_jax.models.description import Description
from sws_jax.pixels import Normalization
from sws_jax.training import step

from support.compare import close, equal
from support.learngenes import DIGITS, GENE, describe, learngene
from support.networks import aux_spec, logits_of, params_of


@pytest.mark.parametrize(
    "stages, training",
    [
        ((1, 2), False),
        ((1, 2), True),
        # The one above has both a stage that is applied once and one that is repeated.
        pytest.param((2,), True, marks=pytest.mark.slow),
        pytest.param((1, 1), True, marks=pytest.mark.slow),
    ],
)
def test_own_plan_is_the_aux_net(stages, training, images):
    """Same logits; each gene's gradient is the sum over its copies."""
    spec = aux_spec(stages)
    params = params_of(spec)
    gene = sws_jax.extract(sws_jax.Network(spec, params, describe(spec)))
    descendant = sws_jax.expand(gene, depth=spec.depth)
    assert descendant.plan == spec.plan
    keep = None
    if training:
        rates = spec.net.drop_path_rates
        keep = vit.drop_path_masks(jax.random.key(5), rates, len(images))
        assert (np.asarray(keep) == 0).any()

    def loss(params, spec):
        logits = spec.build().apply({"params": params}, images, keep)
        return (logits * jnp.arange(10.0)).sum(), logits

    gradient = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    aux_gradient, aux_logits = gradient(params, spec)
    des_gradient, des_logits = gradient(descendant.params, descendant.spec)
    close(aux_logits, des_logits)
    for stage in range(len(stages)):
        copies = np.flatnonzero(np.asarray(descendant.plan) == stage)
        summed = jax.tree.map(
            lambda leaf, rows=copies: leaf[rows].sum(axis=0), des_gradient["blocks"]
        )
        close(aux_gradient[f"stage_{stage}"], summed)
    rest = [name for name in des_gradient if name != "blocks"]
    close({n: aux_gradient[n] for n in rest}, {n: des_gradient[n] for n in rest})


def test_extract_and_auxiliary_are_inverse(aux):
    params = params_of(aux)
    network = sws_jax.Network(aux, params, describe(aux))
    back = learngenes.auxiliary(sws_jax.extract(network))
    equal(params, back.params)
    assert back.spec == aux
    assert back.description == network.description


def test_the_tenth_stage_follows_the_ninth():
    """Sorted by name, it would follow the first."""
    spec = aux_spec((1,) * 11)
    params = params_of(spec)
    gene = sws_jax.extract(sws_jax.Network(spec, params, describe(spec)))
    for stage in range(11):
        taken = jax.tree.map(lambda leaf, s=stage: leaf[s], gene.params["blocks"])
        equal(params[f"stage_{stage}"], taken)
    equal(params, learngenes.auxiliary(gene).params)


def test_a_network_to_train_is_described_by_its_spec():
    """From the start it says what the run leaves: a learngene, or its weights."""
    aux = aux_spec((1, 2))
    own = dict(normalization=Normalization((0.3,), (0.4,)))
    about = learngenes.describe(aux, **own)
    assert about.spec == aux
    assert (about.kind, about.method, about.stages) == ("aux_net", "sws", (1, 2))
    about = learngenes.describe(aux.net, **own)
    assert about.spec == aux.net
    assert (about.kind, about.method, about.stages) == ("network", "", ())


@pytest.mark.parametrize("depth", range(1, 65))
def test_every_depth_takes_each_block_from_its_gene(depth):
    gene = GENE
    descendant = sws_jax.expand(gene, depth=depth)
    assert descendant.spec.depth == depth == len(descendant.plan)
    genes = gene.params["blocks"]
    for name, leaf in trees.flatten(descendant.params["blocks"]).items():
        source = trees.flatten(genes)[name]
        assert leaf.dtype == source.dtype
        np.testing.assert_array_equal(
            leaf, np.stack([source[g] for g in descendant.plan])
        )
    assert list(descendant.plan) == sorted(descendant.plan)
    if depth >= 5:
        assert set(descendant.plan) == set(range(5))


@pytest.mark.parametrize(
    "depth, stages, counts",
    [
        (16, (3, 3, 4, 3, 3), (3, 3, 4, 3, 3)),  # published: the Aux-Net's own
        (12, (3, 3, 4, 3, 3), (3, 3, 2, 2, 2)),  # published
        (15, (3, 3, 4, 3, 3), (3, 3, 3, 3, 3)),
        (17, (3, 3, 4, 3, 3), (4, 4, 3, 3, 3)),
        (5, (3, 3, 4, 3, 3), (1, 1, 1, 1, 1)),
        (4, (3, 3, 4, 3, 3), (1, 1, 0, 1, 1)),
        (3, (3, 3, 4, 3, 3), (1, 0, 1, 0, 1)),
        (2, (3, 3, 4, 3, 3), (0, 1, 0, 1, 0)),
        (1, (3, 3, 4, 3, 3), (0, 0, 1, 0, 0)),
        (12, (1, 2, 3, 2), (2, 3, 4, 3)),  # largest remainder, tie to the earliest
        (16, (1, 2, 3, 2), (2, 4, 6, 4)),
        (8, (1, 2, 3, 2), (1, 2, 3, 2)),
        (3, (1, 1, 10), (1, 1, 1)),  # no stage is left empty
        (3, (1, 5, 5), (1, 1, 1)),
        (7, (1,), (7,)),
    ],
)
def test_rule_of_depths(depth, stages, counts):
    plan = sws.allot(depth, stages)
    assert tuple(plan.count(s) for s in range(len(stages))) == counts


def test_three_ways_to_ask(images):
    plan = (0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4)
    by_depth = sws_jax.expand(GENE, depth=12)
    by_plan = sws_jax.expand(GENE, plan=plan)
    by_allotment = sws_jax.expand(GENE, allotment=(3, 3, 2, 2, 2))
    assert by_depth.plan == by_plan.plan == by_allotment.plan == plan
    equal(by_depth.params, by_plan.params)
    odd = sws_jax.expand(GENE, plan=np.asarray([4, 0, 4]))
    assert odd.plan == (4, 0, 4)
    logits = logits_of(odd.spec, odd.params, images)
    assert logits.shape == (6, 10)


@pytest.mark.parametrize(
    "request_, words",
    [
        (dict(), "exactly one of depth, plan and allotment, not none"),
        (dict(depth=3, plan=(0, 1, 2)), r"not depth=3, plan=\(0, 1, 2\)"),
        (dict(depth=0), "from 1 to 1024, and is 0"),
        (dict(depth=-2), "and is -2"),
        (dict(depth=2.0), "and is 2.0"),
        (dict(depth=True), "and is True"),
        (dict(depth=4096), "and is 4096"),
        (dict(plan=()), "this one has 0"),
        (dict(plan=(0, 5)), r"plan\[1\] is gene 5, but there are 5 genes, 0 to 4"),
        (dict(plan=(-1,)), r"plan\[0\] is gene -1"),
        (dict(plan=(0.5,)), r"plan\[0\] must be a whole number"),
        (dict(allotment=(3, 3)), r"\(3, 3\) has 2 counts for 5 genes"),
        (dict(allotment=(0, 0, 0, 0, 0)), "add up to 1"),
        (dict(allotment=(1, 1, 1, 1, -1)), "at least 0"),
        (dict(plan=5), "plan must be a sequence of whole numbers, and is 5"),
        (dict(allotment=3), "allotment must be a sequence"),
        (dict(depth=4, image_size=8.5), "and 8.5 is neither"),
        (dict(depth=4, image_size="ab"), "'ab' is neither"),
        (
            dict(depth=4, num_classes=3, seed=2**63),
            "seed must be a whole number",
        ),
        (dict(depth=4, image_size=9), "9 x 9 pixels does not divide"),
        (dict(depth=4, num_classes=-1), "num_classes"),
    ],
)
def test_wrong_requests_are_one_sentence(request_, words):
    with pytest.raises(ValueError, match=words) as caught:
        sws_jax.expand(GENE, **request_)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "allotted, words",
    [
        ((0, 1), "makes a plan of 2 blocks for a depth of 3"),
        ((0, 1, 5), r"plan\[2\] is gene 5, but there are 5 genes"),
    ],
)
def test_a_rule_that_does_not_fill_a_depth_is_refused(allotted, words, monkeypatch):
    """An index out of range would be another gene, without a word."""
    monkeypatch.setattr(sws.SWS, "allot", lambda self, depth, stages: allotted)
    with pytest.raises(UserError, match=words):
        sws_jax.expand(GENE, depth=3)


@pytest.mark.parametrize(
    "plan, words",
    [
        ((), "this one has 0"),
        ((0, 5), r"plan\[1\] is gene 5, but there are 5 genes"),
        ((-1, 0), r"plan\[0\] is gene -1"),
        (((0, 0, 2),), r"plan\[0\] must be a whole number"),
    ],
)
def test_a_method_itself_refuses_a_plan_of_no_genes(plan, words):
    """Whoever asks a method, and not `sws_jax.expand`, has nothing checked before."""
    method = learngenes.find_method("sws")
    with pytest.raises(UserError, match=words):
        method.expand(GENE, plan, jax.random.key(0))


def test_a_descendant_was_never_scored():
    """The accuracy of the Aux-Net is not its own."""
    assert GENE.description.accuracy == 0.5
    assert sws_jax.expand(GENE, depth=4).description.accuracy == -1.0


def test_the_plan_is_known_without_the_parameters():
    for asked in (dict(depth=7), dict(allotment=(1, 0, 2, 0, 1)), dict(plan=(0, 4))):
        plan = learngenes.plan_of(GENE.description, **asked)
        assert plan == sws_jax.expand(GENE, **asked).plan


def test_expand_changes_nothing_it_was_given():
    before = jax.tree.map(np.copy, GENE.params)
    sws_jax.expand(GENE, depth=7, num_classes=3, image_size=16)
    equal(before, jax.tree.map(np.asarray, GENE.params))
    assert set(GENE.params) == set(before)


def test_a_descendant_owns_its_arrays():
    """Donating its parameters, as a train step does, leaves the learngene alone."""
    gene = jax.tree.map(jnp.asarray, GENE)
    descendant = sws_jax.expand(gene, depth=5)
    double = jax.jit(lambda tree: jax.tree.map(lambda x: 2 * x, tree), donate_argnums=0)
    double(descendant.params)
    equal(GENE.params, gene.params)
    assert sws_jax.expand(GENE, depth=5).params["norm"] is not GENE.params["norm"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_numpy_stays_numpy_and_dtype_is_kept(dtype):
    dtype = jnp.dtype(dtype)
    gene = jax.tree.map(lambda x: x.astype(dtype), GENE)
    kinds = dict(num_classes=3, image_size=16)
    for leaf in jax.tree.leaves(sws_jax.expand(gene, depth=7, **kinds)):
        assert type(leaf) is np.ndarray
        assert leaf.dtype == dtype
    if dtype == np.float16:  # the others on a device too
        return
    on_device = jax.tree.map(jnp.asarray, gene)
    for leaf in jax.tree.leaves(sws_jax.expand(on_device, depth=7, **kinds)):
        assert isinstance(leaf, jax.Array)
        assert leaf.dtype == dtype


def test_pytrees_under_jit_and_eval_shape():
    expand = jax.jit(lambda g: sws_jax.expand(g, depth=6, num_classes=4, image_size=12))
    eager = sws_jax.expand(GENE, depth=6, num_classes=4, image_size=12)
    compiled = expand(GENE)
    assert isinstance(compiled, sws_jax.Descendant)
    assert (compiled.spec, compiled.description) == (eager.spec, eager.description)
    close(eager.params, compiled.params, 1e-6)
    shapes = jax.eval_shape(expand, learngenes.abstract_learngene(GENE.description))
    assert trees.difference(eager.params, shapes.params) == []
    for tree in (GENE, eager):
        leaves, structure = jax.tree.flatten(tree)
        assert all(isinstance(leaf, (np.ndarray, jax.Array)) for leaf in leaves)
        assert jax.tree.structure(jax.tree.unflatten(structure, leaves)) == structure
        hash(tree.description)
        with pytest.raises(dataclasses.FrozenInstanceError):
            tree.params = {}


def test_expand_is_differentiable():
    def total(gene):
        return sum(
            leaf.sum() for leaf in jax.tree.leaves(sws_jax.expand(gene, depth=8).params)
        )

    gradient = jax.jit(jax.grad(total))(jax.tree.map(jnp.asarray, GENE))
    counts = np.asarray([2, 2, 2, 1, 1], np.float32)
    for leaf in jax.tree.leaves(gradient.params["blocks"]):
        np.testing.assert_array_equal(
            leaf, np.broadcast_to(counts.reshape(5, *[1] * (leaf.ndim - 1)), leaf.shape)
        )


def test_sharding_is_kept():
    mesh = Mesh(np.asarray(jax.devices()).reshape(2, 4), ("data", "tensor"))

    def place(name, leaf):
        # The last axis that four devices divide; the gene axis stays whole.
        spec = [None] * leaf.ndim
        axes = [a for a in range(1, leaf.ndim) if leaf.shape[a] % 4 == 0]
        if axes:
            spec[axes[-1]] = "tensor"
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*spec)))

    params = trees.map_with_name(place, GENE.params)
    gene = sws_jax.Learngene(params, GENE.description)
    descendant = sws_jax.expand(gene, depth=7, num_classes=3)
    before = trees.flatten(params)
    for name, leaf in trees.flatten(descendant.params).items():
        assert isinstance(leaf.sharding, NamedSharding), name
        assert leaf.sharding.mesh == mesh
        if not name.startswith("head"):
            assert leaf.sharding.is_equivalent_to(before[name].sharding, leaf.ndim)
    equal(sws_jax.expand(GENE, depth=7).params["blocks"], descendant.params["blocks"])


@pytest.mark.parametrize(
    "sizes", [(2, 2, 2), pytest.param((1, 4, 2), marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize(
    "profile, request_",
    [
        ("consistent", dict(depth=7)),
        ("consistent", dict(plan=(0, 2, 2, 4), image_size=16)),
        ("consistent", dict(depth=3, num_classes=6)),
        ("official", dict(depth=6, image_size=16)),
    ],
    ids=str,
)
def test_a_sharded_learngene_expands_where_it_is(sizes, profile, request_):
    """Placed as the trainer places a descendant, without communication."""
    changes = dict(width=384, heads=12, mlp_ratio=0.25) if profile == "official" else {}
    gene = learngene(about=dict(profile=profile), **changes)
    mesh = sharding.make_mesh(sizes=dict(zip(sharding.AXES, sizes, strict=True)))
    genes = gene.description.vit.replace(depth=gene.num_genes)
    params = jax.device_put(gene.params, step.network_shardings(genes, mesh))
    split = sws_jax.Learngene(params, gene.description)
    descendant = sws_jax.expand(split, **request_)
    assert descendant.spec.heads == (6 if profile == "official" else 2)
    places = trees.flatten(step.network_shardings(descendant.spec, mesh))
    for name, leaf in trees.flatten(descendant.params).items():
        assert leaf.sharding.is_equivalent_to(places[name], leaf.ndim), name
    equal(sws_jax.expand(gene, **request_).params, descendant.params)
    compiled = jax.jit(lambda g: sws_jax.expand(g, **request_)).lower(split).compile()
    assert traffic.collectives(compiled.as_text()) == []


def test_head():
    kept = sws_jax.expand(GENE, depth=3)
    equal(GENE.params["head"], kept.params["head"])
    assert kept.description.class_names == DIGITS
    fresh = sws_jax.expand(GENE, depth=3, num_classes=10, seed=1)
    assert not np.array_equal(
        fresh.params["head"]["kernel"], kept.params["head"]["kernel"]
    )
    assert fresh.params["head"]["kernel"].std() == pytest.approx(16**-0.5, rel=0.2)
    assert not fresh.params["head"]["bias"].any()
    assert fresh.description.class_names == ()
    equal(fresh.params, sws_jax.expand(GENE, depth=3, num_classes=10, seed=1).params)
    other = sws_jax.expand(GENE, depth=3, num_classes=10, seed=2)
    assert not np.array_equal(
        fresh.params["head"]["kernel"], other.params["head"]["kernel"]
    )
    none = sws_jax.expand(GENE, depth=3, num_classes=0)
    assert "head" not in none.params
    assert none.spec.num_classes == 0


@pytest.mark.parametrize("pool", ["mean", "token"])
def test_image_size(pool):
    gene = learngene((1, 2), pool=pool)
    same = sws_jax.expand(gene, depth=3, image_size=8)
    equal(same.params["pos_embed"], gene.params["pos_embed"])
    descendant = sws_jax.expand(gene, depth=3, image_size=(8, 16))
    assert descendant.spec.grid == (2, 4)
    assert descendant.params["pos_embed"].shape == (1, 8 + (pool == "token"), 16)
    images = np.zeros((2, 8, 16, 1), np.float32)
    logits = logits_of(descendant.spec, descendant.params, images)
    assert np.isfinite(logits).all()
    if pool == "token":
        equal(descendant.params["pos_embed"][:, 0], gene.params["pos_embed"][:, 0])


def test_a_smooth_position_embedding_is_interpolated():
    """Bicubic interpolation is exact on a ramp, away from the border."""
    gene = learngene((1, 2), image_size=32)
    ramp = np.arange(8, dtype=np.float32)[:, None, None] * np.ones((1, 8, 16))
    params = {**gene.params, "pos_embed": ramp.reshape(1, 64, 16).astype(np.float32)}
    descendant = sws_jax.expand(
        sws_jax.Learngene(params, gene.description), depth=2, image_size=(64, 32)
    )
    rows = descendant.params["pos_embed"].reshape(16, 8, 16)
    expected = (np.arange(16) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(rows[4:12, 3, 0], expected[4:12], atol=1e-5)


def test_as_many_patches_in_another_shape():
    """4 x 4 patches are not 2 x 8, although they are 16."""
    old = aux_spec((3,), image_size=16).net
    new = old.replace(image_size=(8, 32))
    embedding = np.random.default_rng(0).normal(size=(1, 16, 16)).astype(np.float32)
    expected = jax.image.resize(
        embedding.reshape(1, 4, 4, 16), (1, 2, 8, 16), "bicubic"
    )
    close(expected.reshape(1, 16, 16), surgery.resize_pos_embed(embedding, old, new))


# PyTorch 2.13's bicubic interpolation, not antialiased, of OLD to 2 x 6.
OLD = [[0, 1, 4, 9], [2, 0, -3, 5], [1, 1, 7, 2]]
NEW = [
    [0.46657997, 0.48913574, 0.84349197, 1.34408915, 5.25500488, 8.73192024],
    [1.34536433, 0.66601562, 1.26182735, 4.10959244, 3.86523438, 2.36986017],
]


def test_position_embeddings_as_the_released_code_resizes_them():
    old = aux_spec((3,), image_size=(12, 16)).net
    new = old.replace(image_size=(8, 24))
    embedding = np.zeros((1, 12, 16), np.float32)
    embedding[0, :, 5] = np.ravel(OLD)
    for array in (embedding, jnp.asarray(embedding)):
        resized = surgery.resize_pos_embed(array, old, new, antialias=False)
        assert isinstance(resized, type(array))
        np.testing.assert_allclose(resized[0, :, 5], np.ravel(NEW), atol=1e-6)
        assert not np.any(np.delete(resized, 5, axis=2))
    antialiased = surgery.resize_pos_embed(embedding, old, new)
    assert np.abs(antialiased[0, :, 5] - np.ravel(NEW)).max() > 0.1


def test_an_official_learngene_expands_to_another_function():
    """12 heads of 32 become 6 of 64; epsilon and the order of pooling change."""
    size = dict(width=384, heads=12, norm_eps=1e-5)
    gene = learngene((1, 1), about=dict(profile="official"), **size)
    descendant = sws_jax.expand(gene, depth=2)
    assert (descendant.spec.heads, descendant.spec.norm_eps) == (6, 1e-6)
    assert (descendant.spec.pool_order, descendant.description.profile) == (
        "mean_norm",
        "official",
    )
    shapes = {k: leaf.shape for k, leaf in trees.flatten(descendant.params).items()}
    expected = networks.abstract_params(descendant.spec)
    assert shapes == {k: leaf.shape for k, leaf in trees.flatten(expected).items()}
    for name in ("qkv", "proj"):
        for leaf in ("kernel", "bias"):
            ours, theirs = (
                params["blocks"]["attn"][name][leaf].reshape(2, -1)
                for params in (descendant.params, gene.params)
            )
            np.testing.assert_array_equal(ours, theirs)
    # Whoever wants the Aux-Net itself asks for the other profile.
    about = gene.description.replace(profile="consistent")
    same = sws_jax.expand(sws_jax.Learngene(gene.params, about), depth=2)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    auxiliary, kept, changed = (
        logits_of(net.spec, net.params, images)
        for net in (learngenes.auxiliary(gene), same, descendant)
    )
    close(auxiliary, kept)
    assert np.abs(auxiliary - changed).max() > 1e-2 * np.abs(auxiliary).max()


def linear_gene(depth=4):
    """A TLEG learngene: of one gene, base and slope, with no zeros."""
    spec = aux_spec((depth,)).net
    about = describe(aux_spec((depth,)), kind="learngene", method="tleg")
    params = params_of(spec.replace(depth=1))
    slope = params_of(spec.replace(depth=1), seed=1)["blocks"]
    blocks = {"base": params["blocks"], "slope": slope}
    return sws_jax.Learngene({**params, "blocks": blocks}, about)


@pytest.mark.parametrize("depth", range(1, 17))
def test_tleg_is_linear_in_depth(depth):
    """2312.05614, equation 1, in float64; in numpy, in jax and under jit."""
    gene = linear_gene()
    descendant = sws_jax.expand(gene, depth=depth)
    base, slope = (gene.params["blocks"][name] for name in ("base", "slope"))
    for layer in range(depth):
        exact = jax.tree.map(
            lambda b, s: b[0].astype(np.float64) + layer / depth * s[0],  # noqa: B023
            base,
            slope,
        )
        block = jax.tree.map(lambda x: x[layer], descendant.params["blocks"])  # noqa: B023
        close(exact, block, 1e-6)
    if depth in (1, 5, 16):
        compiled = jax.jit(lambda g: sws_jax.expand(g, depth=depth))(gene)
        close(descendant.params, compiled.params, 1e-6)
    assert all(
        isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(descendant.params)
    )


def test_a_tleg_learngene_as_a_file_and_as_its_aux_net(tmp_path, images):
    gene = linear_gene()
    path = str(tmp_path / "tleg.safetensors")
    sws_jax.save_learngene(path, gene)
    back = sws_jax.load_learngene(path)
    equal(gene.params, back.params)
    auxiliary = learngenes.auxiliary(back)
    own = sws_jax.expand(back, depth=4)
    assert auxiliary.description.kind == "network"
    equal(auxiliary.params, own.params)
    block = params_of(own.spec.replace(depth=1))["blocks"]
    rest = {k: v for k, v in gene.params.items() if k != "blocks"}
    assert learngenes.num_stored(gene) == trees.count(rest) + 2 * trees.count(block)


@pytest.mark.parametrize("size, stored", [("small", 4_305_256), ("base", 15_687_400)])
def test_what_published_tleg_learngenes_store(size, stored):
    net = specs.named(f"vit_{size}_patch16_L12")
    about = Description(
        kind="learngene",
        net=net,
        stages=(12,),
        method="tleg",
        normalization=Normalization((0.5,) * 3, (0.5,) * 3),
    )
    assert learngenes.num_stored(learngenes.abstract_learngene(about)) == stored


def test_extract_needs_a_described_aux_net(net):
    plain = sws_jax.Network(net, params_of(net))
    with pytest.raises(ValueError, match="taken from an Aux-Net"):
        sws_jax.extract(plain)


def test_unknown_method_lists_the_known():
    gene = sws_jax.Learngene(GENE.params, GENE.description.replace(method="magic"))
    with pytest.raises(ValueError, match="'magic'; the known ones are sws"):
        sws_jax.expand(gene, depth=2)
