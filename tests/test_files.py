"""Files that appear whole or not at all: of arrays, of JSON, of text."""

import fcntl
import os

import numpy as np
import pytest
import safetensors.numpy

from sws_jax.errors import UserError
from sws_jax.storage import array_files, documents, files


def test_equal_tensors_are_equal_bytes(tmp_path):
    """The library writes metadata in another order each time."""
    flat = {name: np.arange(n, dtype=np.float32) for n, name in enumerate("cab", 1)}
    metadata = {name: name * 3 for name in ("format", "digest", "description", "x", "")}
    written = set()
    for turn in range(8):
        path = tmp_path / f"{turn}.safetensors"
        names, keys = sorted(flat), sorted(metadata)
        if turn % 2:
            names, keys = names[::-1], keys[::-1]
        array_files.write_tensors(
            str(path), {n: flat[n] for n in names}, {k: metadata[k] for k in keys}
        )
        written.add(path.read_bytes())
    assert len(written) == 1
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata() == metadata


def test_tensors_of_all_kinds_are_read_by_the_library(tmp_path):
    """Whatever their order in memory, and as the library itself writes them."""
    kinds = "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64"
    kinds += " float16 bfloat16 float32 float64"
    flat = {
        kind: np.arange(6).reshape(2, 3).astype(np.dtype(kind))
        for kind in kinds.split()
    }
    flat |= {'odd " \n ü': np.ones(3, np.int8), "none": np.zeros((0, 2), np.float32)}
    flat["one"] = np.full((), 7.0, np.float32)
    plain = dict(flat)
    flat["turned"] = np.arange(6.0).reshape(2, 3).T
    flat["big"] = np.arange(3, dtype=">i4")
    path = tmp_path / "net.safetensors"
    array_files.write_tensors(str(path), flat)
    loaded = safetensors.numpy.load_file(path)
    assert loaded.keys() == flat.keys()
    for name, array in flat.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype.newbyteorder("<")
    start = int.from_bytes(path.read_bytes()[:8], "little")
    assert start % 8 == 0  # where the widest numbers begin
    single = {name: array for name, array in plain.items() if array.dtype == np.float32}
    array_files.write_tensors(str(path), single)
    assert path.read_bytes() == safetensors.numpy.save(single)


def test_tensors_that_such_files_do_not_have(tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(UserError, match="net.safetensors cannot be written .a holds <"):
        array_files.write_tensors(str(path), {"a": np.asarray(["text"])})
    assert not path.exists()


def test_replacing_leaves_the_old_file_or_the_new(tmp_path):
    path = tmp_path / "file.txt"
    files.write_text(str(path), "old")
    with pytest.raises(ValueError), files.replacing(str(path)) as temporary:
        with open(temporary, "w") as file:
            file.write("half of the new")
        raise ValueError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_what_a_killed_process_left_is_swept(tmp_path):
    (tmp_path / ".net.sws-0123abcd.safetensors").write_text("half")
    (tmp_path / ".table.sws-0123abcd").write_text("half")
    others = [".net.sws-0123.safetensors", "net.sws-0123abcd.safetensors", ".bashrc"]
    for name in others:
        (tmp_path / name).write_text("whole")
    (tmp_path / ".folder.sws-0123abcd").mkdir()
    files.sweep(str(tmp_path))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted([*others, ".folder.sws-0123abcd"])


def test_files_are_synced_through_what_may_write(tmp_path, monkeypatch):
    """Windows refuses to sync a file that is open for reading alone."""
    modes = []

    def sync(number):
        modes.append(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE)

    monkeypatch.setattr(os, "fsync", sync)
    files.write_text(str(tmp_path / "file.txt"), "new")
    assert modes == [os.O_RDWR]


@pytest.mark.parametrize(
    "text, words",
    [('{"step": ', "is damaged"), ("[1]", "no JSON object"), ("\xff", "is damaged")],
)
def test_damaged_json(text, words, tmp_path):
    path = tmp_path / "result.json"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=f"result.json .*{words}|{words}.*: rest"):
        documents.read_json(str(path))


def test_merged():
    old = {"a": 1, "b": {"c": 2, "d": 3}, "e": {"f": 4}}
    new = {"b": {"c": 5}, "e": 6, "g": 7}
    both = documents.merged(old, new)
    assert both == {"a": 1, "b": {"c": 5, "d": 3}, "e": 6, "g": 7}
    assert old == {"a": 1, "b": {"c": 2, "d": 3}, "e": {"f": 4}}
