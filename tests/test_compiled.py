"""Compiled programs on disk: who keeps them, where, and what comes first."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from sws_jax import __main__ as tools
from sws_jax import main, xla_flags
from sws_jax.runtime import compiled, processes

ROOT = pathlib.Path(__file__).parent.parent
X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
cpu MHz\t\t: 2800.178
flags\t\t: fpu sse avx2
"""
ARM = "CPU implementer\t: 0x41\nCPU part\t: 0xd0c\nFeatures\t: fp asimd\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The cache of a user who has set nothing, in a process where JAX is to come."""
    for variable in compiled.VARIABLES:
        # A value first: it takes away what the test sets, too.
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "jax")
    return tmp_path / "sws_jax" / "compiled"


def test_the_folder_is_said_and_children_inherit_it(home):
    line = compiled.keep()
    (folder,) = home.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(folder)
    assert float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]) < 0.1
    assert str(folder) in line and "0 programs" in line
    assert "SWS_JAX_COMPILATION_CACHE=off" in line
    assert compiled.keep() == ""  # as a process that this one starts


def test_unlike_machines_and_versions_share_no_program(home, monkeypatch, tmp_path):
    cpu = tmp_path / "cpuinfo"
    monkeypatch.setattr(compiled, "_CPU_INFO", str(cpu))
    monkeypatch.setattr(xla_flags, "jaxlib", lambda: "0.10.2")

    def folder(text):
        for variable in compiled.VARIABLES:
            os.environ.pop(variable, None)
        cpu.write_text(text)
        compiled.keep()
        return os.environ["JAX_COMPILATION_CACHE_DIR"]

    one = folder(X86)
    same = X86.replace("2800.178", "1200.0").replace("fpu sse avx2", "avx2 fpu sse")
    assert folder(same) == folder(X86 + X86) == one  # of all cores, at any speed
    others = [
        folder(X86.replace(" avx2", "")),
        folder(X86.replace("85", "143")),
        folder(ARM),
        folder(ARM.replace("asimd", "asimd sve")),
        folder("no words that are known"),
    ]
    monkeypatch.setattr("platform.node", lambda: "another")
    others.append(folder("no words that are known"))
    monkeypatch.setattr(xla_flags, "jaxlib", lambda: "0.11.2")
    others.append(folder(X86))
    assert len({one, *others}) == 8


@pytest.mark.parametrize(
    "variable, value",
    [
        ("SWS_JAX_COMPILATION_CACHE", "off"),
        ("SWS_JAX_COMPILATION_CACHE", "OFF"),
        ("SWS_JAX_COMPILATION_CACHE", "0"),
        ("JAX_COMPILATION_CACHE_DIR", "mine"),
        ("JAX_COMPILATION_CACHE_DIR", ""),
        ("JAX_ENABLE_COMPILATION_CACHE", "false"),
        # Programs that are taken from a file leave no dump.
        ("XLA_FLAGS", "--xla_dump_to=here"),
    ],
)
def test_what_the_user_has_set_comes_first(variable, value, home, monkeypatch):
    monkeypatch.setenv(variable, value)
    before = dict(os.environ)
    assert compiled.keep() == ""
    assert dict(os.environ) == before and not home.exists()


def test_single_settings_of_the_user_are_kept(home, monkeypatch):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_per_fusion_autotune_cache_dir=mine")
    assert compiled.keep()
    assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "7"
    assert os.environ["JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"] == "none"


def test_a_folder_that_cannot_be_used_is_no_failure(home, monkeypatch):
    home.parent.mkdir()
    home.write_text("a file where the folder would be")
    before = dict(os.environ)
    assert "compiled programs are not kept, as " in compiled.keep()
    assert dict(os.environ) == before
    home.unlink()
    compiled.keep()
    (folder,) = home.iterdir()
    del os.environ["JAX_COMPILATION_CACHE_DIR"]
    folder.chmod(0o777)  # what others can write, they could have this user run
    assert "compiled programs are not kept, as " in compiled.keep()


def test_a_relative_folder_is_not_taken(home, monkeypatch, tmp_path):
    """By the rules of the variable, which name the home folder instead."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert str(tmp_path / "home" / ".cache" / "sws_jax") in compiled.keep()
    assert not (tmp_path / "relative").exists()


def test_the_oldest_half_goes_where_programs_have_become_too_many(home, monkeypatch):
    other = home / "jaxlib-0.9"
    other.mkdir(parents=True)
    for age in range(10):
        path = other / f"{age}-cache"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1e9 - age, 1e9 - age))
    monkeypatch.setattr(compiled, "_MAX_BYTES", 1000)
    compiled.keep()
    assert len(list(other.iterdir())) == 10
    del os.environ["JAX_COMPILATION_CACHE_DIR"]
    monkeypatch.setattr(compiled, "_MAX_BYTES", 900)
    compiled.keep()
    assert {path.name for path in other.iterdir()} == {f"{n}-cache" for n in range(4)}


def test_commands_that_compile_keep_programs(monkeypatch, tmp_path, capsys):
    class Asked(Exception):
        pass

    def keep():
        raise Asked

    monkeypatch.setattr(compiled, "keep", keep)
    command = [f"--config={ROOT}/configs/smoke.py", f"--workdir={tmp_path}"]
    assert main.main(command) == main.EXIT_ERROR
    assert "Asked" in capsys.readouterr().err
    monkeypatch.setattr(processes, "is_alone", lambda: False)
    assert main.main([*command, "--config.global_batch_size=12"]) == 2
    monkeypatch.undo()
    monkeypatch.setattr(compiled, "keep", keep)
    with pytest.raises(Asked):
        tools.main(["predict", "no.safetensors", "no.png"])
    assert tools.main(["cost", "levit_384"]) == 0


PROGRAM = """
import json, sys
from sws_jax.runtime import compiled
if "before" in sys.argv:
    import jax
import sws_jax
found = [compiled.keep() if "keep" in sys.argv else ""]
import jax
import jax.numpy as jnp
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
assert jax.jit(lambda x: jnp.tanh(x) @ x)(jnp.ones((4, 4))).shape == (4, 4)
count = lambda word: sum(e.endswith(word) for e in events)
print(json.dumps([*found, count("/cache_hits"), count("/cache_misses")]))
"""


def start(home, *words):
    """What a process printed that compiles a program, and what it warned of."""
    settings = {n: v for n, v in os.environ.items() if n not in compiled.VARIABLES}
    settings |= {"XDG_CACHE_HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        env=settings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return *json.loads(done.stdout), done.stderr


def test_a_second_process_compiles_nothing_and_damage_ends_none(tmp_path):
    line, hits, misses, _ = start(tmp_path)
    assert (line, hits, misses) == ("", 0, 0)  # the import alone switches nothing on
    assert not list(tmp_path.iterdir())
    line, hits, misses, _ = start(tmp_path, "keep")
    assert line and hits == 0 and misses > 0
    line, again, none, _ = start(tmp_path, "before", "keep")
    assert f"{misses} program" in line and (again, none) == (misses, 0)
    entries = sorted(tmp_path.rglob("*-cache"))
    assert len(entries) == misses
    whole = entries[0].read_bytes()
    for number, entry in enumerate(entries):
        entry.write_bytes((whole[: len(whole) // 2], b"", b"nothing")[number % 3])
    line, hits, again, _ = start(tmp_path, "keep")
    assert "0 programs" in line and hits == 0 and again == misses
    # One that is not even looked at ends nothing either.
    (folder,) = (tmp_path / "sws_jax" / "compiled").iterdir()
    for entry in entries:
        entry.write_bytes(whole[: len(whole) // 2])
        os.utime(entry, (1e9, 1e9))
    _, hits, _, warned = start(tmp_path, "keep")
    assert hits == 0 and "Error reading persistent compilation cache entry" in warned
