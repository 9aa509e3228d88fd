"""Locks, and files that appear whole or not at all."""

import subprocess
import sys

import pytest

from sws_jax import files


def test_one_process_at_a_time(tmp_path):
    path = tmp_path / "run" / "lock"
    with files.claimed(str(path)) as first:
        assert first and path.exists()
        with files.claimed(str(path)) as second:
            assert not second
        # Being refused takes nothing from whoever holds it.
        with files.claimed(str(path)) as third:
            assert not third
    assert not path.parent.exists()
    with files.claimed(str(path)) as again:
        assert again


def test_what_was_put_there_stays(tmp_path):
    path = tmp_path / "run" / "lock"
    with files.claimed(str(path)):
        (path.parent / "result").write_text("42")
    assert [p.name for p in path.parent.iterdir()] == ["result"]


def test_an_error_frees_the_lock(tmp_path):
    path = str(tmp_path / "lock")
    with pytest.raises(OSError, match="disk full"), files.claimed(path):
        raise OSError("disk full")
    with pytest.raises(FileNotFoundError), files.claimed(path):
        raise FileNotFoundError("gone")
    with files.claimed(path) as mine:
        assert mine


def test_a_dead_process_holds_nothing(tmp_path):
    """kill -9 leaves the file, and not the lock."""
    path = tmp_path / "lock"
    program = (
        "import os, signal; from sws_jax import files\n"
        f"with files.claimed({str(path)!r}): os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program])
    assert done.returncode == -9 and path.exists()
    with files.claimed(str(path)) as mine:
        assert mine
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
