"""Locks of files on disks."""

import errno
import os
import subprocess
import sys

import filelock
import pytest

from sws_jax.errors import UserError
from sws_jax.storage import locks


def test_one_process_at_a_time(tmp_path):
    path = tmp_path / "run" / "lock"
    with locks.claimed(str(path)) as first:
        assert first and path.exists()
        with locks.claimed(str(path)) as second:
            assert not second
        # Being refused takes nothing from whoever holds it.
        with locks.claimed(str(path)) as third:
            assert not third
    assert not path.parent.exists()
    with locks.claimed(str(path)) as again:
        assert again


def test_what_was_put_there_stays(tmp_path):
    path = tmp_path / "run" / "lock"
    with locks.claimed(str(path)):
        (path.parent / "result").write_text("42")
    assert [p.name for p in path.parent.iterdir()] == ["result"]


def test_an_error_frees_the_lock(tmp_path):
    path = str(tmp_path / "lock")
    with pytest.raises(OSError, match="disk full"), locks.claimed(path):
        raise OSError("disk full")
    with pytest.raises(FileNotFoundError), locks.claimed(path):
        raise FileNotFoundError("gone")
    with locks.claimed(path) as mine:
        assert mine


def test_a_dead_process_holds_nothing(tmp_path):
    """kill -9 leaves the file, and not the lock."""
    path = tmp_path / "lock"
    program = (
        "import os, signal; from sws_jax.storage import locks\n"
        f"with locks.claimed({str(path)!r}): os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program])
    assert done.returncode == -9 and path.exists()
    with locks.claimed(str(path)) as mine:
        assert mine
    assert not path.exists()


def test_a_directory_that_goes_while_it_is_asked_for(tmp_path, monkeypatch):
    """Its last holder takes it away between another's mkdir and open."""
    path = tmp_path / "run" / "lock"
    make, calls = os.makedirs, []

    def vanishing(*args, **kwargs):
        make(*args, **kwargs)
        if not calls:
            path.parent.rmdir()
        calls.append(args)

    monkeypatch.setattr(os, "makedirs", vanishing)
    with locks.claimed(str(path)) as mine:
        assert mine
    assert len(calls) == 2


def test_a_directory_that_can_never_be():
    """The kernel's own file system says that there is none, whoever asks."""
    with pytest.raises(UserError, match="/proc/no/lock cannot be written"):
        with locks.claimed("/proc/no/lock"):
            raise AssertionError("a lock in /proc")


def test_a_lock_is_seen_and_left_as_it_is(tmp_path):
    path = tmp_path / "lock"
    assert not locks.is_claimed(str(path)) and not path.exists()
    path.write_text("left by a killed process")
    path.chmod(0o444)
    assert not locks.is_claimed(str(path))
    assert path.read_text() == "left by a killed process"
    with locks.claimed(str(tmp_path / "other")) as mine:
        assert mine and locks.is_claimed(str(tmp_path / "other"))


def test_the_lock_of_another_program_is_respected(tmp_path):
    path = str(tmp_path / "lock")
    with filelock.FileLock(path):
        assert locks.is_claimed(path)
        with locks.claimed(path) as mine:
            assert not mine
    with locks.claimed(path) as mine:
        assert mine
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(path).acquire(blocking=False)


def test_a_disk_without_locks(tmp_path, monkeypatch):
    """A mark in a file is not taken for a lock: it stays when its process is killed."""

    def lock_descriptor(number, *, blocking):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(filelock, "lock_descriptor", lock_descriptor)
    path = str(tmp_path / "lock")
    with pytest.raises(UserError) as raised, locks.claimed(path, remedy="move"):
        raise AssertionError("locked")
    assert str(raised.value) == (
        f"{path} cannot be locked (Function not implemented): move, on a disk that has "
        f"locks"
    )


def test_where_no_open_file_is_removed(tmp_path, monkeypatch):
    """Windows: the file is closed first."""
    path, remove = tmp_path / "lock", os.remove

    def remove_closed(target):
        opened = [
            os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
        ]
        assert str(path) not in opened
        remove(target)

    monkeypatch.setattr(locks, "_WINDOWS", True)
    monkeypatch.setattr(os, "remove", remove_closed)
    with locks.claimed(str(path)) as mine:
        assert mine
    assert not path.exists()
