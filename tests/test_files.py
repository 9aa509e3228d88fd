"""Locks, and files that appear whole or not at all."""

import fcntl
import os
import subprocess
import sys

import pytest

from sws_jax import files
from sws_jax.errors import UserError


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


def test_files_are_synced_through_what_may_write(tmp_path, monkeypatch):
    """Windows refuses to sync a file that is open for reading alone."""
    modes = []

    def sync(number):
        modes.append(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE)

    monkeypatch.setattr(os, "fsync", sync)
    files.write_text(str(tmp_path / "file.txt"), "new")
    assert modes == [os.O_RDWR]


def test_a_directory_that_goes_while_it_is_asked_for(tmp_path, monkeypatch):
    """Its last holder takes it away between another's mkdir and open."""
    path = tmp_path / "run" / "lock"
    make, made = os.makedirs, []

    def vanishing(*args, **kwargs):
        make(*args, **kwargs)
        if not made:
            path.parent.rmdir()
        made.append(args)

    monkeypatch.setattr(os, "makedirs", vanishing)
    with files.claimed(str(path)) as mine:
        assert mine
    assert len(made) == 2


def test_a_directory_that_can_never_be():
    """The kernel's own file system says that there is none, whoever asks."""
    with pytest.raises(UserError, match="/proc/no/lock cannot be written"):
        with files.claimed("/proc/no/lock"):
            raise AssertionError("a lock in /proc")


@pytest.mark.parametrize(
    "text, words",
    [('{"step": ', "is damaged"), ("[1]", "no JSON object"), ("\xff", "is damaged")],
)
def test_damaged_json(text, words, tmp_path):
    path = tmp_path / "result.json"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=f"result.json .*{words}|{words}.*: rest"):
        files.read_json(str(path))


def test_merged():
    old = {"a": 1, "b": {"c": 2, "d": 3}, "e": {"f": 4}}
    new = {"b": {"c": 5}, "e": 6, "g": 7}
    both = files.merged(old, new)
    assert both == {"a": 1, "b": {"c": 5, "d": 3}, "e": 6, "g": 7}
    assert old == {"a": 1, "b": {"c": 2, "d": 3}, "e": {"f": 4}}
