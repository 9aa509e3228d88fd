"""The flag that versions of jaxlib need: who gets it, and who is told."""

import importlib
import os
import pathlib
import pickle
import subprocess
import sys

import pytest

import benchmarks
import sws_jax
from sws_jax import __main__ as tools
from sws_jax import doctor, main, xla_flags
from sws_jax.doctor import compiler

ROOT = pathlib.Path(__file__).parent.parent
FLAG = "--xla_cpu_experimental_ynn_fusion_type=-reduce"
OWN = "--xla_cpu_experimental_ynn_fusion_type=+reduce"


@pytest.fixture
def bare(monkeypatch):
    """A process of a version that needs the flag, without it, and with JAX to come."""
    monkeypatch.setattr(xla_flags, "jaxlib", lambda: "0.10.2")
    monkeypatch.setattr(xla_flags, "_started", lambda: False)
    monkeypatch.setattr(xla_flags, "_warned", False)
    monkeypatch.delenv("XLA_FLAGS")


@pytest.mark.parametrize(
    "flags, version, expected",
    [
        ("", "0.10.2", FLAG),
        ("--a=1 --b", "0.10.2", f"--a=1 --b {FLAG}"),
        (f" {OWN} --b", "0.10.2", f" {OWN} --b"),
        (f"--a=1 {FLAG}", "0.10.2", f"--a=1 {FLAG}"),
        # What was not tried may not know it, and would abort.
        ("--a=1", "0.9.2", "--a=1"),
        ("--a=1", "0.10.3", "--a=1"),
        ("", "0.12.0", ""),
        ("", "", ""),
    ],
)
def test_a_flag_is_added_by_version_beside_others(
    flags, version, expected, monkeypatch
):
    monkeypatch.setattr(xla_flags, "jaxlib", lambda: version)
    assert xla_flags.merged(flags) == expected


def test_versions_that_were_tried():
    for tried in xla_flags.TRIED.values():
        assert tried.date >= "2026-11-28" and tried.found
        assert tried.flag in ("", FLAG)


def test_flags_in_a_file_are_kept(bare, tmp_path):
    """XLA takes a path in the place of flags, and no flag beside it."""
    path = tmp_path / "flags"
    path.write_text("--a=1\n--b=2\n")
    assert xla_flags.merged(str(path)) == f"--a=1 --b=2 {FLAG}"
    path.write_text(OWN)
    assert xla_flags.merged(str(path)) == str(path)


def test_it_is_added_once(bare, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--a=1")
    xla_flags.add()
    xla_flags.add()
    assert os.environ["XLA_FLAGS"] == f"--a=1 {FLAG}"
    assert not xla_flags.missing()


def test_too_late_it_is_not_added_and_the_way_out_is_another(bare, monkeypatch):
    monkeypatch.setattr(xla_flags, "_started", lambda: True)
    with pytest.warns(RuntimeWarning, match="restart Python and first of all call"):
        xla_flags.add()
    assert "XLA_FLAGS" not in os.environ
    xla_flags.add()  # said once


def test_a_version_that_needs_none_is_quiet(bare, monkeypatch):
    monkeypatch.setattr(xla_flags, "jaxlib", lambda: "0.10.3")
    xla_flags.add()
    xla_flags.warn()
    assert "XLA_FLAGS" not in os.environ


ENTRIES = {
    "jobs": lambda: main.main(["--config=no.py"]),
    "tools": lambda: tools.main(["describe", "no.safetensors"]),
    "benchmarks": lambda: importlib.reload(benchmarks),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_commands_add_it(name, bare):
    ENTRIES[name]()
    assert os.environ["XLA_FLAGS"] == FLAG


def python(program):
    """What a program prints in a process of its own, and its errors, line by line."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    return done.stdout.splitlines(), done.stderr.splitlines()


COMMANDS = """
import os, sys
from sws_jax import __main__ as tools
from sws_jax import main, xla_flags
add = xla_flags.add
def told():
    print("jax" in sys.modules)
    add()
xla_flags.add = told
main.main(["--config=no.py"])
import benchmarks
tools.main(["describe", "no.safetensors"])
print("jax" in sys.modules, xla_flags.missing() == "")
"""


def test_commands_add_it_before_jax_is_loaded():
    out, errors = python(COMMANDS)
    assert out == ["False"] * 3 + ["True True"]
    assert len(errors) == 2, errors  # of the config and the file that are not there


NOTEBOOK = """
import os
before = dict(os.environ)
import sws_jax
sws_jax.Learngene, sws_jax.expand
import sws_jax.losses
assert dict(os.environ) == before
from sws_jax.doctor import compiler
for finding in compiler.compiler(None):
    print(finding.state, finding.text, finding.advice, sep="|")
"""


def test_without_it_one_line_says_so_and_doctor_finds_the_fault():
    if not xla_flags.needed():
        pytest.skip(f"jaxlib {xla_flags.jaxlib()} is not known to need a flag")
    (finding,), errors = python(NOTEBOOK)
    assert len(errors) == 1, errors
    assert "first of all call sws_jax.xla_flags.add(), or have " in errors[0]
    assert finding.startswith("problem|") and "computes wrong numbers" in finding
    assert finding.endswith(f"|have {FLAG} in XLA_FLAGS, which are ''")


def test_doctor_says_what_to_do_where_no_flag_is_known(monkeypatch):
    monkeypatch.setattr(compiler, "is_right", lambda program: False)
    monkeypatch.setattr(xla_flags, "jaxlib", lambda: "0.10.3")
    (finding,) = compiler.compiler(None)
    assert finding.state == doctor.PROBLEM and "jaxlib 0.10.3 on cpu" in finding.text
    assert "tried (0.10.0, 0.10.1, 0.10.2" in finding.advice


def test_doctor_runs_the_cases_with_the_flag():
    assert [finding.state for finding in compiler.compiler(None)] == [doctor.OK]


# Names that are loaded when they are used


def test_public_names_and_modules_are_there():
    scope: dict = {}
    exec("from sws_jax import *", scope)
    assert set(sws_jax.__all__) <= set(scope)
    assert set(sws_jax.__all__) == set(sws_jax._HOMES)
    assert set(sws_jax.__all__) <= set(dir(sws_jax))
    from sws_jax import cost, expand

    assert sws_jax.cost is cost and sws_jax.expand is expand
    for name in sws_jax.__all__:
        found = getattr(sws_jax, name)
        assert pickle.loads(pickle.dumps(found)) is found
    with pytest.raises(AttributeError, match="module 'sws_jax' has no attribute 'no'"):
        _ = sws_jax.no
