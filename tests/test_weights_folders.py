"""Folders of weights, what is never written over, and what the system refuses."""

import contextlib
import errno
import json
import os
import pathlib
import re
import resource
import shutil
import socket
import tempfile

import numpy as np
import pytest
import safetensors.numpy

import sws_jax
from sws_jax import __main__ as tools
from sws_jax import convert, specs
from sws_jax.convert import base, folders, overwriting, tensors, vit
from sws_jax.errors import UserError
from sws_jax.jobs import teacher
from sws_jax.models import networks
from sws_jax.models.description import Description
from sws_jax.pixels import default_normalization
from sws_jax.storage import files
from sws_jax.storage.names import WEIGHTS

from support.compare import equal
from support.networks import params_of

SPEC = specs.ViTSpec(
    depth=2, width=64, heads=1, mlp_ratio=2.0, patch_size=8, channels=3,
    image_size=(32, 32), num_classes=5, pool="token", norm_eps=1e-12,
)  # fmt: skip
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = folders.WEIGHTS + ".index.json"
CONFIG = dict(model_type="vit", num_attention_heads=1)


def weights_of(seed=0, names=vit.HF_VIT):
    return base.write(params_of(SPEC, seed), names.entries(SPEC))


def put(path, flat=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(weights_of() if flat is None else flat, path)
    return path


def put_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


@pytest.fixture
def flat():
    return weights_of()


@pytest.fixture
def sharded(tmp_path, flat):
    """A folder with two shards, their index and a config."""
    folder, names = tmp_path / "net", sorted(flat)
    halves = {FIRST: names[: len(names) // 2], SECOND: names[len(names) // 2 :]}
    for file, half in halves.items():
        put(folder / file, {name: flat[name] for name in half})
    where = {name: file for file, half in halves.items() for name in half}
    put_json(folder / INDEX, {"metadata": {"total_size": 1}, "weight_map": where})
    put_json(folder / "config.json", CONFIG)
    return folder


def reindex(folder, **changes):
    index = json.loads((folder / INDEX).read_text())["weight_map"]
    return put_json(folder / INDEX, {"weight_map": {**index, **changes}})


@pytest.fixture
def ours(tmp_path):
    """A file of this project's own."""
    path = tmp_path / "ours.safetensors"
    spec = SPEC.replace(norm_eps=1e-6)
    about = Description(
        kind="network", net=spec, normalization=default_normalization(3)
    )
    network = networks.Network(spec, params_of(spec, 0), about)
    networks.save_network(str(path), network)
    return path


@pytest.fixture
def command(capsys):
    """Runs a command: exit code, what is printed, what is complained of."""

    def run(*args):
        code = tools.main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert err.count("\n") == bool(code)
        return code, out, err

    return run


@pytest.fixture
def refused(command):
    """The one sentence with which a command ends with exit code 2."""

    def run(*args):
        code, _, err = command(*args)
        assert code == 2
        return err

    return run


@contextlib.contextmanager
def limited(size):
    """Files of this process cannot grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def forbidden(path):
    """A path that may not be read, though root runs the tests."""
    # A user without rights to Python's files could not import late.
    import tabulate  # noqa: F401

    mode, user = path.stat().st_mode, os.geteuid()
    path.chmod(0)
    try:
        if not user:
            os.seteuid(65534)
        yield
    finally:
        if not user:
            os.seteuid(0)
        path.chmod(mode)


# Forms of folders


def test_all_shards_are_read_and_what_stands_beside(sharded, tmp_path, command):
    put_json(sharded / "config.json", {**CONFIG, "layer_norm_eps": 1e-5})
    alone = convert.load(put(tmp_path / "one.safetensors"), heads=1, norm_eps=1e-5)[0]
    for source in (sharded, sharded / INDEX):
        assert tensors.read(source).flat.keys() == tensors.read(str(source)).flat.keys()
        network = convert.load(source)[0]
        equal(network.params, alone.params)
        assert network.spec.norm_eps == 1e-5
    code, out, _ = command("convert", sharded, tmp_path / "out.safetensors")
    assert code == 0 and "note:" not in out
    assert "LayerNorm epsilon 1e-05" in command("describe", sharded)[1]


def test_an_unusual_folder_is_as_its_file(sharded, tmp_path, monkeypatch):
    """By a relative path, through a link, with a slash at its end."""
    expected = convert.load(sharded)[0].params
    (tmp_path / "link").symlink_to(sharded)
    monkeypatch.chdir(tmp_path)
    for source in ("net", "./net/", "link", f"net/{INDEX}"):
        equal(convert.load(source)[0].params, expected)
    monkeypatch.chdir(sharded)
    for source in (".", INDEX):
        equal(convert.load(source)[0].params, expected)


def test_a_tensor_is_taken_from_the_file_that_the_index_names(sharded, flat):
    name = "classifier.bias"
    both = safetensors.numpy.load_file(sharded / SECOND)
    put(sharded / SECOND, {**both, name: flat[name] + 1})
    assert name in json.loads((sharded / INDEX).read_text())["weight_map"]
    reindex(sharded, **{name: FIRST})
    read = tensors.read(str(sharded)).flat[name]
    np.testing.assert_array_equal(read, flat[name])


@pytest.mark.parametrize(
    "file",
    ["../other.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", 3, "a\\b"],
)
def test_an_index_leads_nowhere_else(sharded, refused, file):
    reindex(sharded, **{"classifier.bias": file})
    message = refused("convert", sharded, sharded / "out.safetensors")
    assert INDEX in message and "no name of a file beside it" in message


def test_what_shards_lack(sharded, refused, tmp_path):
    out = tmp_path / "out.safetensors"
    reindex(sharded, surplus=FIRST)
    message = refused("convert", sharded, out)
    assert "names 1 tensors that none of its files has (surplus)" in message
    (sharded / SECOND).rename(tmp_path / SECOND)
    assert f"names 2 files, and {SECOND} is not there" in refused(
        "convert", sharded, out
    )
    message = refused("describe", sharded / FIRST)
    assert (
        f"is one of 2 files that hold a network together: give the folder, {sharded}"
        in message
    )
    (sharded / INDEX).write_text('{"weight_map": {}}')
    assert "names no tensors" in refused("describe", sharded)
    (sharded / INDEX).write_text('{"weight_map": []}')
    assert f"{INDEX} is damaged (weight_map is no object)" in refused(
        "describe", sharded
    )
    (sharded / INDEX).unlink()
    shutil.copy(sharded / FIRST, sharded / SECOND)
    message = refused("describe", sharded)
    assert f"holds {FIRST}, {SECOND} and no {INDEX} that says" in message


def test_a_single_file_beside_an_index_is_taken_and_told(sharded, tmp_path, command):
    """As transformers does; nothing is to be told of an index of that one file."""
    put(sharded / folders.WEIGHTS, weights_of(seed=1))
    out = tmp_path / "out.safetensors"
    code, output, _ = command("convert", sharded, out)
    assert code == 0
    equal(sws_jax.load_network(str(out)).params, params_of(SPEC, 1))
    single = sharded / folders.WEIGHTS
    words = f"{single} is read, as transformers does, though {INDEX} beside it"
    assert f"note: {words} names {FIRST}, {SECOND}: move" in output
    assert words in " ".join(command("describe", sharded)[1].split())
    with pytest.warns(UserWarning, match=words):
        convert.load(sharded)
    named = dict.fromkeys(weights_of(), folders.WEIGHTS)
    put_json(sharded / INDEX, {"weight_map": named})
    assert "note:" not in command("convert", sharded, out)[1]


def test_the_only_file_of_weights_is_read(tmp_path, flat):
    """Whatever its name, and beside what trainers leave."""
    expected = convert.load(put(tmp_path / "a" / "net.fp32.safetensors"), heads=1)[
        0
    ].params
    for name in ("optimizer.bin", "training_args.bin", "rng_state.pth", ".x.pth"):
        (tmp_path / "a" / name).write_bytes(b"")
    (tmp_path / "b").mkdir()
    np.savez(tmp_path / "b" / "net.npz", **flat)
    put(tmp_path / "c" / "open_clip_model.safetensors")
    put(tmp_path / "c" / "other.safetensors", {"x": np.zeros(1)})
    for folder in "abc":
        put_json(tmp_path / folder / "config.json", CONFIG)
        equal(convert.load(tmp_path / folder)[0].params, expected)


@pytest.mark.parametrize(
    "names, words",
    [
        ([], "(it is empty): name the file"),
        (["config.json"], "other file of weights (it holds config.json): name"),
        (["notes.txt", "optimizer.pt"], "(it holds notes.txt, optimizer.pt)"),
        (["flax_model.msgpack", "config.json"], "flax_model.msgpack, which is not r"),
        (["tf_model.h5"], "holds tf_model.h5, which is not read here"),
        (["epoch=3.ckpt"], "epoch=3.ckpt is "),
        (["a.safetensors", "b.pth"], "2 files of weights and none that is called mod"),
        ([f"{n}.pth" for n in range(9)], "name one of 0.pth, 1.pth, 2.pth, 3.pth and"),
        (["pytorch_model.bin"], "pytorch_model.bin"),
        (["open_clip_pytorch_model.bin"], "open_clip_pytorch_model.bin"),
    ],
)
def test_what_a_folder_holds_is_told(tmp_path, refused, names, words):
    folder = tmp_path / "net"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{}" if name == "config.json" else "PK")
    for line in (["convert", folder, tmp_path / "o.safetensors"], ["describe", folder]):
        message = refused(*line)
        assert (
            words in message
            and str(folder) in message
            and "not finished" not in message
        )
    with pytest.raises(UserError, match=str(folder)) as caught:
        teacher.load_teacher(str(folder))
    assert "not finished" not in str(caught.value)
    assert str(folder) in refused("predict", folder, "three.png")
    assert "Is a directory" not in refused("evaluate", folder)


def test_a_folder_of_another_program_is_no_teacher_yet(sharded, refused):
    way = f"(python -m sws_jax convert {sharded} OUT.safetensors)"
    assert way in refused("predict", sharded, "three.png")
    with pytest.raises(UserError) as caught:
        teacher.load_teacher(str(sharded))
    assert way in str(caught.value)


def test_an_unfinished_run_still_is_one(tmp_path, refused):
    for folder in (tmp_path, tmp_path / "job"):
        (tmp_path / "job" / "run" / "checkpoints").mkdir(parents=True, exist_ok=True)
        put_json(tmp_path / "job" / "config.json", {})
        if folder.name == "job":
            assert "the run has not finished" in refused("describe", folder)


def test_the_cache_of_the_hub(tmp_path, flat):
    """By refs/main, or the only version; its files are links to blobs."""
    cache = tmp_path / "models--org--net"
    blob = put(cache / "blobs" / "abc.safetensors").rename(cache / "blobs" / "abc")
    for name in ("one", "two"):
        (cache / "snapshots" / name).mkdir(parents=True)
        put_json(cache / "snapshots" / name / "config.json", CONFIG)
    link = cache / "snapshots" / "two" / folders.WEIGHTS
    link.symlink_to("../../blobs/abc")
    with pytest.raises(UserError, match="holds 2 versions of a model, and .*refs/main"):
        convert.load(cache)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("two\n")
    equal(convert.load(cache)[0].params, params_of(SPEC, 0))
    shutil.rmtree(cache / "refs")
    shutil.rmtree(cache / "snapshots" / "one")
    equal(convert.load(cache)[0].params, params_of(SPEC, 0))
    blob.unlink()
    with pytest.raises(UserError, match=f"{link} is a link to ../../blobs/abc, which"):
        convert.load(cache)
    shutil.rmtree(cache / "snapshots" / "two")
    with pytest.raises(UserError, match="snapshots is empty"):
        convert.load(cache)


def test_what_trainers_leave_is_no_weights(tmp_path, flat):
    """Accelerate's, DeepSpeed's; and what is called like it is."""
    expected = convert.load(put(tmp_path / "a" / "best.safetensors"), heads=1)[0].params
    for name in (
        *("sampler.bin", "dataloader.bin", "random_states_0.pkl", "optimizer_1.bin"),
        *("zero_pp_rank_0_mp_rank_00_optim_states.pt", "adam_optimizer.pt"),
    ):
        (tmp_path / "a" / name).write_bytes(b"")
    put_json(tmp_path / "a" / "config.json", CONFIG)
    equal(convert.load(tmp_path / "a")[0].params, expected)
    (tmp_path / "a" / "mp_rank_00_model_states.pt").write_bytes(b"")
    with pytest.raises(UserError, match="2 files of weights .* mp_rank_00_model_stat"):
        convert.load(tmp_path / "a")


@pytest.mark.parametrize("before", ["./", ""])
def test_an_index_may_say_that_files_are_here(sharded, before):
    index = json.loads((sharded / INDEX).read_text())["weight_map"]
    put_json(sharded / INDEX, {"weight_map": {k: before + v for k, v in index.items()}})
    equal(convert.load(sharded)[0].params, params_of(SPEC, 0))


def test_the_folder_of_versions_in_the_cache_of_the_hub(tmp_path, monkeypatch):
    cache = tmp_path / "models--org--net"
    put(cache / "snapshots" / "one" / folders.WEIGHTS)
    put_json(cache / "snapshots" / "one" / "config.json", CONFIG)
    equal(convert.load(cache / "snapshots")[0].params, params_of(SPEC, 0))
    monkeypatch.chdir(cache / "snapshots")
    for path in (".", "./", "../snapshots/"):
        equal(convert.load(path)[0].params, params_of(SPEC, 0))
    put(cache / "snapshots" / "two" / folders.WEIGHTS)
    with pytest.raises(UserError, match="holds 2 versions of a model"):
        convert.load(".")


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", INDEX, "processor_config.json"]
)
def test_a_pointer_of_git_beside_weights(tmp_path, refused, name):
    if name != INDEX:
        put(tmp_path / "net" / folders.WEIGHTS)
        put_json(tmp_path / "net" / "config.json", CONFIG)
    (tmp_path / "net").mkdir(exist_ok=True)
    (tmp_path / "net" / name).write_text("version https://git-lfs.github.com/spec/v1\n")
    message = refused("describe", tmp_path / "net")
    assert f"{tmp_path / 'net' / name} is a pointer of Git LFS" in message
    assert "run git lfs pull" in message


# This project's own files


def damaged(ours, **changes):
    """The file with other metadata or tensors, and nothing said of what they were."""
    with safetensors.safe_open(ours, "numpy") as file:
        metadata = file.metadata()
        flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    metadata |= {k: v for k, v in changes.items() if isinstance(v, str)}
    if arrays := {k: v for k, v in changes.items() if not isinstance(v, str)}:
        flat |= arrays
        del metadata["digest"]
    safetensors.numpy.save_file(flat, ours, metadata)
    return ours


@pytest.mark.parametrize("name", ["OURS.SAFETENSORS", "ours.Safetensors"])
def test_our_own_file_under_another_spelling(ours, command, refused, name):
    path = ours.rename(ours.parent / name)
    assert "layout       sws_jax, a network" in command("describe", path)[1]
    message = refused("convert", path, ours.parent / "out.safetensors")
    assert f"{path} is this project's own" in message
    equal(sws_jax.load_network(path).params, params_of(SPEC, 0))


@pytest.mark.parametrize("form", ["sws_jax 2", "sws_jax 1.1", "sws_jax/9", "sws_jax"])
def test_a_newer_version_of_our_files(ours, refused, form):
    damaged(ours, format=form)
    words = f"{ours} was written by another version of this project (its format is "
    for line in (["describe"], ["predict", "a.png"], ["convert", ours.parent / "o.s"]):
        command, *rest = line
        rest = [f"{one}afetensors" if command == "convert" else one for one in rest]
        message = refused(command, ours, *rest)
        assert f"{words}{form!r}" in message and "install a newer one" in message
    with pytest.raises(UserError, match="install a newer one"):
        sws_jax.load_network(ours)


def test_what_only_looks_like_ours_is_another_s(ours, command):
    damaged(ours, format="sws_jaxed 1")
    assert "layout       Flax tree stacked" in command("describe", ours)[1]


def test_describe_judges_our_files_as_they_are_read(ours, command):
    assert "initialises  a run of" in command("describe", ours)[1]
    whole = ours.read_bytes()
    ours.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    output = command("describe", ours)[1]
    assert f"initialises  nothing: {ours} does not hold what was written" in output
    bias = np.zeros(5, np.float32)
    for changes, words in (
        ({"head/bias": bias[:3]}, "does not hold the network that its description"),
        ({"head/extra": bias}, "does not hold the network that its description"),
        ({"head/bias": bias * np.nan}, "head/bias holds 5 numbers that are NaN"),
        ({"head/bias": bias.astype(np.int32)}, "holds int32 (head/bias), and weights"),
        ({"head/bias": bias.astype(float) + 1e300}, "too large for float32"),
    ):
        ours.write_bytes(whole)
        damaged(ours, **changes)
        (line,) = (
            line
            for line in command("describe", ours)[1].splitlines()
            if line.startswith("initialises")
        )
        assert line.startswith(f"initialises  nothing: {ours}") and words in line


# Nothing is written over what is read


def test_nothing_is_written_over_what_is_read(sharded, tmp_path, refused, monkeypatch):
    before = {path.name: path.read_bytes() for path in sharded.iterdir()}
    os.link(sharded / SECOND, tmp_path / "hard.safetensors")
    (tmp_path / "soft.safetensors").symlink_to(sharded / FIRST)
    monkeypatch.chdir(tmp_path)
    targets = [sharded / FIRST, f"./net/../net/{SECOND}", "hard.safetensors"]
    for target in (*targets, "soft.safetensors"):
        for source in (sharded, f"net/{INDEX}"):
            message = refused("convert", source, target)
            assert f"{target} would be written over itself" in message
    message = refused("convert", "net", f"net/{folders.WEIGHTS}")
    assert "would be taken for the weights of net" in message
    assert {path.name: path.read_bytes() for path in sharded.iterdir()} == before


def test_a_file_that_says_more_is_read_too(tmp_path, refused):
    net = put(tmp_path / "net.safetensors")
    target = put_json(tmp_path / "config.json", CONFIG)
    os.link(target, tmp_path / "linked.safetensors")
    message = refused("convert", net, tmp_path / "linked.safetensors")
    assert "would be written over itself or what it is read with" in message


def test_one_file_by_any_name(ours, refused, monkeypatch):
    content = ours.read_bytes()
    (ours.parent / "soft.npz").symlink_to(ours)
    os.link(ours, ours.parent / "hard.npz")
    monkeypatch.chdir(ours.parent)
    for target in ("./ours.safetensors", "soft.npz", "hard.npz"):
        message = refused("convert", ours, target, "--to", "flax")
        assert f"{target} would be written over itself" in message
    assert ours.read_bytes() == content


def test_no_folder_is_made_of_or_in_what_is_read(ours, refused, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    ours.rename(run / WEIGHTS)
    assert "would be written over itself" in refused(
        "convert", run, run, "--to", "timm"
    )
    for target in (run / "timm", run / "new" / "timm"):
        message = refused("convert", run, target, "--to", "timm")
        assert f"{target} would be a folder inside {run}, which is read" in message
    assert os.listdir(run) == [WEIGHTS]


def test_a_new_file_beside_what_is_read_is_written(sharded, command):
    assert command("convert", sharded, sharded / "new.safetensors")[0] == 0
    assert sws_jax.load_network(str(sharded / "new.safetensors")).spec == SPEC


@pytest.mark.parametrize(
    "source, target",
    [
        ("pytorch_model.bin", folders.WEIGHTS),
        (INDEX, folders.WEIGHTS),
        ("open_clip_model.safetensors", "pytorch_model.bin"),
        ("best.safetensors", folders.WEIGHTS),
    ],
)
def test_nothing_is_put_where_it_is_read_instead(tmp_path, source, target):
    net = tmp_path / "net"
    put(net / source)
    if source == INDEX:
        put(net / FIRST)
        put_json(net / INDEX, {"weight_map": dict.fromkeys(weights_of(), FIRST)})
    put_json(net / "config.json", CONFIG)
    for into in (net / target, net / ".." / "net" / target):
        with pytest.raises(UserError, match="would be taken for the weights of"):
            overwriting.refuse_overwriting(str(into), str(net / source))
    overwriting.refuse_overwriting(str(tmp_path / target), str(net / source))
    overwriting.refuse_overwriting(
        str(net / "weights.safetensors.x"), str(net / source)
    )


def test_a_file_by_itself_is_no_model_s_folder(tmp_path, command):
    net = put(tmp_path / "net.safetensors")
    assert command("convert", net, tmp_path / folders.WEIGHTS, "--heads", "1")[0] == 0


def test_nothing_is_put_into_the_cache_of_the_hub(tmp_path, refused):
    cache = tmp_path / "models--org--net"
    put(cache / "snapshots" / "one" / "weights.safetensors")
    target = cache / "snapshots" / "one" / folders.WEIGHTS
    for source in (cache, cache / "snapshots", cache / "snapshots" / "one"):
        assert "would be taken for the weights" in refused("convert", source, target)


def test_nothing_is_put_beside_the_only_weights_of_a_folder(tmp_path, refused):
    put(tmp_path / "net" / "best.safetensors")
    message = refused("convert", tmp_path / "net", tmp_path / "net" / "out.safetensors")
    assert "would stand beside the only weights of" in message


@pytest.mark.parametrize(
    "target", ["file:///tmp/o.safetensors", "nobody://b/o.safetensors"]
)
@pytest.mark.parametrize("to", [(), ("--to", "timm"), ("--to", "flax")])
def test_no_other_scheme_is_written_to(ours, refused, target, to, monkeypatch):
    monkeypatch.chdir(ours.parent)
    message = refused("convert", ours, target, *to)
    assert (
        f"{target} begins with {target[: target.index('/') + 2]}, and files" in message
    )
    assert os.listdir() == [ours.name]


def test_no_file_is_written_as_one_of_several(tmp_path, refused, command):
    net = put(tmp_path / "net.safetensors")
    out = tmp_path / "o-00001-of-00002.safetensors"
    message = refused("convert", net, out, "--heads", "1")
    assert f"{out} is named as one of 2 files that hold a network" in message
    out = tmp_path / "o-00001-of-00001.safetensors"
    assert command("convert", net, out, "--heads", "1")[0] == 0
    assert command("describe", out)[0] == 0


def test_arguments_are_named_as_they_are_typed(ours, refused):
    out = ours.parent / "out"
    assert "sws_jax: IN 'a\\x00b' is no path" in refused(
        "convert", "a\0b", f"{out}.safetensors"
    )
    assert refused("convert", ours, "") == "sws_jax: OUT is empty\n"
    assert refused("convert", "", out) == "sws_jax: IN is empty\n"
    assert "sws_jax: --to 'keras'" in refused("convert", ours, out, "--to", "keras")
    net = put(ours.parent / "net.safetensors")
    message = refused("convert", net, f"{out}.safetensors", "--heads", "0")
    assert message.startswith("sws_jax: --heads must be")


# What the system refuses


def test_no_file_can_be_put_there(tmp_path, refused):
    net = put(tmp_path / "net.safetensors")
    out = tmp_path / "out.safetensors"
    out.mkdir()
    words = f"{out} cannot be written (Is a directory)"
    assert words in refused("convert", net, out)
    out.rmdir()
    os.mkfifo(out)
    words = f"{out} cannot be written (it is a pipe, and no file)"
    assert words in refused("convert", net, out)
    out.unlink()
    out.symlink_to("/dev/null")
    assert "it is a device, and no file" in refused("convert", net, out)
    out = net / "below.safetensors"
    assert f"{out} cannot be written (Not a dir" in refused("convert", net, out)
    out = tmp_path / ("n" * 250 + ".safetensors")
    assert f"{out} cannot be written (File name too" in refused("convert", net, out)


def test_a_name_may_be_as_long_as_names_can_be(tmp_path, command):
    out = tmp_path / ("é" * 121 + "e.safetensors")
    assert len(os.fsencode(out.name)) == 255
    assert command("convert", put(tmp_path / "net.safetensors"), out)[0] == 0
    assert sorted(os.listdir(tmp_path)) == sorted(["net.safetensors", out.name])


@pytest.mark.parametrize("to", ["", "timm", "hugging-face", "flax"])
def test_a_full_disk(ours, tmp_path, refused, to):
    """The path that was asked for is named, and nothing of it stays."""
    out = tmp_path / "new" / ("net" if "-" in to or to == "timm" else "net.safetensors")
    source = ours if to else put(tmp_path / "theirs.safetensors")
    before = sorted(os.listdir(tmp_path))
    with limited(20_000):
        message = refused("convert", source, out, *(["--to", to] if to else []))
    assert message == f"sws_jax: {out} cannot be written (File too large)\n"
    assert sorted(os.listdir(tmp_path)) == before


def test_a_full_disk_and_an_npz(ours, tmp_path, refused):
    out = tmp_path / "net.npz"
    with limited(20_000):
        message = refused("convert", ours, out, "--to", "flax")
    assert message == f"sws_jax: {out} cannot be written (File too large)\n"
    assert os.listdir(tmp_path) == [ours.name]


def test_functions_name_what_they_were_given(ours, tmp_path):
    network = sws_jax.load_network(str(ours))
    for path in (f"{tmp_path}/net.safetensors", f"{tmp_path}/a/b/net.safetensors"):
        with limited(20_000), pytest.raises(files.Unwritable) as caught:
            sws_jax.save_network(path, network)
        assert str(caught.value) == f"{path} cannot be written (File too large)"
    with limited(20_000), pytest.raises(UserError) as caught:
        convert.save(f"{tmp_path}/timm", network, "timm")
    assert str(caught.value) == f"{tmp_path}/timm cannot be written (File too large)"
    with pytest.raises(UserError, match="holds a NUL"):
        sws_jax.save_network(f"{tmp_path}/a\0b.safetensors", network)
    assert os.listdir(tmp_path) == [ours.name]


def odd(path, kind):
    """Something at a path that is no file."""
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "device":
        path.symlink_to("/dev/zero")
    if kind == "socket":
        os.chdir(path.parent)  # A socket's name may have some 100 characters.
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    if kind == "directory":
        path.mkdir()
    return path


READS = (sws_jax.load_network, sws_jax.load_learngene, convert.load)
ODD = [
    ("pipe", "it is a pipe, and no file"),
    ("device", "it is a device, and no file"),
    ("socket", "it is a socket, and no file"),
]


@pytest.mark.parametrize("kind, words", ODD)
def test_what_is_no_file_is_not_waited_for(tmp_path, kind, words, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = odd(tmp_path / "net.safetensors", kind)
    for read in READS:
        with pytest.raises(UserError, match=f"{path} cannot be read .{words}"):
            read(str(path))
    for line in (
        ["convert", path, tmp_path / "out.safetensors"],
        ["convert", path, tmp_path / "out", "--to", "timm"],
        ["describe", path],
        ["predict", path, "three.png"],
        ["evaluate", path],
    ):
        assert f"{path} cannot be read ({words})" in refused(*line)
    folder = tmp_path / "folder"
    folder.mkdir()
    path = path.rename(folder / folders.WEIGHTS)
    assert f"{path} cannot be read ({words})" in refused("describe", folder)


@pytest.mark.parametrize("ending", [".npz", ".pth", ".bin", ".safetensors"])
def test_an_error_of_the_disk(tmp_path, ending, refused):
    """Reading a process's memory from its start is one."""
    path = tmp_path / f"net{ending}"
    path.symlink_to("/proc/self/mem")
    words = f"{path} cannot be read (Input/output error)"
    assert words in refused("convert", path, tmp_path / "out.safetensors")
    assert words in refused("describe", path)


def test_rights_are_missing(ours, refused):
    """On a file, on its folder, on what stands beside it, and where one is written."""
    with tempfile.TemporaryDirectory() as name:  # pytest's is its user's alone.
        top = pathlib.Path(name)
        top.chmod(0o755)
        theirs = put(top / "theirs" / folders.WEIGHTS)
        theirs.chmod(0o644)  # That library may leave it to its user alone.
        config = put_json(top / "theirs" / "config.json", CONFIG)
        mine = top / "run" / WEIGHTS
        mine.parent.mkdir()
        shutil.copy(ours, mine)
        words = "cannot be read (Permission denied)"
        for path in (theirs, mine):
            with forbidden(path):
                for read in READS:
                    with pytest.raises(UserError, match=re.escape(f"{path} {words}")):
                        read(str(path))
        with forbidden(theirs):
            for source in (theirs, theirs.parent):
                assert f"{theirs} {words}" in refused(
                    "convert", source, "no/o.safetensors"
                )
                assert f"{theirs} {words}" in refused("describe", source)
        with forbidden(mine):
            for source in (mine, mine.parent):
                line = ["convert", source, "no/o.safetensors", "--to", "flax"]
                assert f"{mine} {words}" in refused(*line)
                assert f"{mine} {words}" in refused("predict", source, "three.png")
                assert f"{mine} {words}" in refused("evaluate", source)
        with forbidden(config):
            for line in (["convert", theirs, "no/o.safetensors"], ["describe", theirs]):
                assert f"{config} {words}" in refused(*line)
        for path in (theirs, mine):
            with forbidden(path.parent):
                for line in (["describe"], ["evaluate"]):
                    for source in (path, path.parent):
                        message = refused(*line, source)
                        assert (
                            f"{source} cannot be" in message and words[-20:] in message
                        )
        with forbidden(theirs.parent):
            out = theirs.parent / "out" / "net.safetensors"
            words = f"{out} cannot be written (Permission denied)"
            assert words in refused("convert", mine, out, "--to", "flax")


def test_a_name_that_is_too_long_and_a_circle_of_links(tmp_path, refused):
    long = tmp_path / ("n" * 300 + ".safetensors")
    circle = tmp_path / "circle.safetensors"
    circle.symlink_to(circle)
    for path, error in ((long, errno.ENAMETOOLONG), (circle, errno.ELOOP)):
        words = f"{path} cannot be read ({os.strerror(error)})"
        for line in (["describe", path], ["predict", path, "a"], ["evaluate", path]):
            assert words in refused(*line)
    with pytest.raises(UserError, match="NUL|no weights file"):
        sws_jax.load_network("a\0b.safetensors")
    with pytest.raises(UserError, match="holds a NUL"):
        convert.load("a\0b.safetensors")


@pytest.mark.parametrize("command_line", ["convert", "describe", "predict", "evaluate"])
def test_an_error_that_nobody_foresaw_is_a_sentence(
    command_line, monkeypatch, refused, ours
):
    """Where it names a file, and where it names none."""

    def fail(*args):
        raise OSError(errno.EIO, os.strerror(errno.EIO), *args)

    lines = {"predict": [ours, "x"], "convert": [ours, "out.safetensors"]}
    line = [command_line, *lines.get(command_line, [ours])]
    monkeypatch.setattr(f"sws_jax.commands.{command_line}.run", lambda a: fail("disk"))
    assert refused(*line) == "sws_jax: disk cannot be read (Input/output error)\n"
    monkeypatch.setattr(f"sws_jax.commands.{command_line}.run", lambda a: fail())
    assert "(Input/output error)" in refused(*line)


# A config.json that cannot be read


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "content, words",
    [
        (b"\xff\xfe{\x00}\x00", "config.json is damaged (it is not UTF-8 from byte 0"),
        (json.dumps({"a": "é"}).replace("\\u00e9", "é").encode("latin-1"), "from byte"),
        (f'{{"model_type": {DEEP}}}'.encode(), "config.json is damaged (maximum recu"),
        (b'{"image_size": 32, "image_size": 64}', "image_size stands in it twice"),
        (b'["vit"]', "config.json holds no JSON object: mend it, or move it away"),
        (b"", "config.json is damaged (Expecting value"),
        (b'{"model_type": "vit"', "config.json is damaged (Expecting"),
    ],
)
def test_a_config_that_says_nothing(tmp_path, refused, content, words):
    path = put(tmp_path / "net" / folders.WEIGHTS)
    (path.parent / "config.json").write_bytes(content)
    assert words in refused("convert", path.parent, tmp_path / "out.safetensors")
    assert words in refused("describe", path)


@pytest.mark.parametrize("kind, words", [*ODD, ("directory", "Is a directory")])
def test_a_config_that_is_no_file(tmp_path, refused, kind, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = put(tmp_path / "net" / folders.WEIGHTS)
    config = odd(path.parent / "config.json", kind)
    words = f"{config} cannot be read ({words})"
    assert words in refused("convert", path.parent, tmp_path / "out.safetensors")
    assert words in refused("describe", path.parent)


def test_a_config_that_the_system_does_not_give(tmp_path, refused):
    path = put(tmp_path / "net" / folders.WEIGHTS)
    config = path.parent / "config.json"
    config.symlink_to("/proc/self/mem")
    assert f"{config} cannot be read (Input/output" in refused("describe", path.parent)
    config.unlink()
    config.symlink_to("gone")
    assert f"{config} cannot be read (No such file" in refused("describe", path.parent)
    config.unlink()
    with open(config, "wb") as file:
        file.truncate(2**40)
    assert "config.json is larger than such files" in refused("describe", path.parent)


def test_a_config_with_a_mark_before_it(tmp_path):
    path = put(tmp_path / "net" / folders.WEIGHTS)
    text = json.dumps({**CONFIG, "layer_norm_eps": 1e-5})
    (path.parent / "config.json").write_text(text, encoding="utf-8-sig")
    assert convert.load(path)[0].spec.norm_eps == 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("single", [False, True])
def test_transformers_takes_the_same_file(tmp_path, with_timm, single):
    transformers = pytest.importorskip("transformers")
    import torch

    config = transformers.ViTConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=1, num_labels=5,
        intermediate_size=128, patch_size=8, image_size=32,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(config)
    model.save_pretrained(tmp_path / "net", max_shard_size="150KB")
    assert (tmp_path / "net" / INDEX).exists()
    if single:
        other = transformers.ViTForImageClassification(config)
        other.save_pretrained(tmp_path / "other")
        shutil.copy(tmp_path / "other" / folders.WEIGHTS, tmp_path / "net")
    again = transformers.ViTForImageClassification.from_pretrained(tmp_path / "net")
    notes = []
    network = convert.load(tmp_path / "net", tell=notes.append)[0]
    theirs = again.classifier.weight.detach().numpy().T
    np.testing.assert_array_equal(network.params["head"]["kernel"], theirs)
    assert any("is read, as transformers does" in note for note in notes) == single
