"""Weights files: what survives in them, and which damage is refused."""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sws_jax
from sws_jax.errors import UserError
from sws_jax.models import weights
from sws_jax.models.description import Description

from support.compare import equal
from support.learngenes import GENE, describe
from support.networks import params_of


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_learngene_survives_its_file(dtype, tmp_path):
    gene = jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)), GENE)
    path = str(tmp_path / "gene.safetensors")
    sws_jax.save_learngene(path, gene)
    back = sws_jax.load_learngene(path)
    equal(gene.params, back.params)
    assert back.description == gene.description
    assert [p.name for p in tmp_path.iterdir()] == ["gene.safetensors"]
    for a, b in zip(jax.tree.leaves(gene), jax.tree.leaves(back), strict=True):
        assert a.dtype == b.dtype


def test_the_description_stands_in_the_header(tmp_path):
    path = tmp_path / "gene.safetensors"
    sws_jax.save_learngene(str(path), GENE)
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    text = json.loads(header["__metadata__"]["description"])
    assert text["stages"] == [3, 3, 4, 3, 3]
    assert text["class_names"] == list("0123456789")
    assert text["normalization"] == {"mean": [0.3], "std": [0.4]}
    assert header["blocks/attn/qkv/kernel"]["shape"] == [5, 16, 3, 2, 8]


def test_a_network_survives_its_file(net, tmp_path):
    about = describe(sws_jax.AuxViTSpec(net, (4,)), kind="network", stages=())
    network = sws_jax.Network(net, params_of(net), about)
    path = str(tmp_path / "net.safetensors")
    sws_jax.save_network(path, network)
    back = sws_jax.load_network(path)
    assert (back.spec, back.description) == (net, about)
    equal(network.params, back.params)
    with pytest.raises(ValueError, match="holds a network .*, not a learngene"):
        sws_jax.load_learngene(path)


def test_an_expanded_learngene_is_a_network_with_a_file(tmp_path):
    descendant = sws_jax.expand(GENE, depth=7)
    path = str(tmp_path / "des.safetensors")
    sws_jax.save_network(path, descendant)
    back = sws_jax.load_network(path)
    assert back.description.plan == descendant.plan
    equal(descendant.params, back.params)


def test_a_learngene_is_no_network(tmp_path):
    path = str(tmp_path / "gene.safetensors")
    sws_jax.save_learngene(path, GENE)
    with pytest.raises(ValueError, match="expand it to a depth first"):
        sws_jax.load_network(path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "gene.safetensors"
    sws_jax.save_learngene(str(path), GENE)
    before = path.read_bytes()
    broken = jax.tree.map(lambda leaf: leaf.astype("U4"), GENE)
    with pytest.raises(UserError, match="gene.safetensors cannot be written"):
        sws_jax.save_learngene(str(path), broken)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["gene.safetensors"]


@pytest.mark.parametrize("keep", [0, 4, 8, 200, -1])
def test_cut_off_files_are_refused(keep, tmp_path):
    path = tmp_path / "gene.safetensors"
    sws_jax.save_learngene(str(path), GENE)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="gene.safetensors is not a readable"):
        sws_jax.load_learngene(str(path))


@pytest.mark.parametrize("where", [0.02, 0.3, 0.6, 0.999])
def test_a_flipped_bit_is_noticed(where, tmp_path):
    """In the description, or in the arrays, whose format has no checksum."""
    path = tmp_path / "gene.safetensors"
    sws_jax.save_learngene(str(path), GENE)
    raw = bytearray(path.read_bytes())
    raw[int(where * len(raw))] ^= 0x01
    path.write_bytes(raw)
    with pytest.raises(UserError, match="gene.safetensors"):
        sws_jax.load_learngene(str(path))


def test_a_file_without_a_digest_is_read(tmp_path):
    """As older versions wrote them."""
    path = tmp_path / "gene.safetensors"
    sws_jax.save_learngene(str(path), GENE)
    rewrite(path, lambda metadata: None)
    equal(GENE.params, sws_jax.load_learngene(str(path)).params)


def rewrite(path, change):
    """Changes the header's metadata of a safetensors file, which has no digest then."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"].pop("digest")
    change(header["__metadata__"])
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def field(**changes):
    def change(metadata):
        about = json.loads(metadata["description"])
        metadata["description"] = json.dumps({**about, **changes})

    return change


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda m: m.update(format="pt"), "format 'pt'"),
        (lambda m: m.clear(), "format None"),
        (lambda m: m.update(description="{"), "not JSON"),
        (lambda m: m.update(description="[]"), "not a JSON object"),
        (field(stages=[3, 3]), "apply 6 blocks"),
        (field(stages=[3, 3, 4, 6]), "does not hold the network"),
        (field(method="magic"), "no learngene method 'magic'"),
        (field(profile="odd"), "profile 'odd'"),
        (field(colour="red"), "no field colour"),
        (field(class_names=["a"]), "1 class names for a head of 10"),
        (
            field(normalization={"mean": [0.1], "std": [0.0]}),
            r"std\[0\] must be above",
        ),
        (field(net={"depth": 16}), "10 class names for a head of 1000"),
        (field(net=3), "net must be a ViTSpec, .*, and is 3"),
        (field(step="x"), "step must be a whole number"),
    ],
)
def test_a_lying_header_is_refused(change, words, tmp_path):
    path = tmp_path / "gene.safetensors"
    sws_jax.save_learngene(str(path), GENE)
    rewrite(path, change)
    with pytest.raises(ValueError, match=words) as caught:
        sws_jax.load_learngene(str(path))
    assert "gene.safetensors" in str(caught.value)


def test_missing_and_surplus_tensors_are_named(tmp_path):
    path = str(tmp_path / "gene.safetensors")
    params = dict(GENE.params)
    del params["norm"]
    params["extra"] = np.zeros(3, np.float32)
    weights.save(path, params, GENE.description)
    with pytest.raises(
        ValueError, match=r"- norm/bias 16; - norm/scale 16; \+ extra 3"
    ):
        sws_jax.load_learngene(path)


def test_missing_file():
    with pytest.raises(ValueError, match="there is no weights file nowhere"):
        sws_jax.load_learngene("nowhere.safetensors")


def test_descriptions_survive_json():
    about = GENE.description
    assert Description.from_json(about.to_json()) == about
    assert hash(Description.from_json(about.to_json())) == hash(about)
