"""The flag that versions of jaxlib need: who gets it, and who is told."""

import ast
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
from sws_jax.preview import dry_run

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
    """The ones that this project names as its floor and its newest are among them."""
    assert {"0.10.0", "0.10.2", "0.11.2"} <= set(xla_flags.TRIED)
    for tried in xla_flags.TRIED.values():
        assert tried.date >= "2026-11-28" and tried.found
        assert tried.flag in ("", FLAG)


@pytest.fixture
def listed(tmp_path):
    """The path of a file of flags, one of whose values has spaces in quotes."""
    path = tmp_path / "flags"
    path.write_text('--a=1\n--b="two  words"\n')
    return str(path)


IN_FILE = '--a=1 --b="two  words"'


def test_flags_in_a_file_are_kept(bare, listed, monkeypatch):
    """XLA takes a path in the place of flags, and no flag beside it."""
    assert xla_flags.merged(listed) == f"{IN_FILE} {FLAG}"
    monkeypatch.setenv("XLA_FLAGS", listed)
    assert xla_flags.missing() == FLAG
    pathlib.Path(listed).write_text(FLAG)
    assert xla_flags.merged(listed) == listed
    assert not xla_flags.missing()


def test_flags_are_joined(listed):
    assert xla_flags.joined("", " --a=1 ", "--b") == "--a=1 --b"
    assert xla_flags.joined("--c", listed, "--d='-'") == f"--c {IN_FILE} --d='-'"
    # What XLA itself does not read has not to hide what follows.
    assert xla_flags.joined("--a=1 b --c", "--d") == "--a=1 --d"
    assert xla_flags.joined("--a=1", "no/such/file") == "no/such/file"


def test_a_dry_run_adds_its_flags_to_those_of_a_file(listed, monkeypatch):
    seen = []
    monkeypatch.setattr(dry_run.jax.config, "update", lambda *_: None)
    monkeypatch.setattr(
        dry_run.jax, "devices", lambda: seen.append(os.environ["XLA_FLAGS"])
    )
    monkeypatch.setenv("XLA_FLAGS", listed)
    dry_run.pretend(8)
    assert seen[0].startswith(f"{IN_FILE} --xla_backend_optimization_level=0 ")
    assert os.environ["XLA_FLAGS"] == listed


def test_only_one_place_writes_flags_beside_others():
    """Text beside a path ends the process, so that each of the others asks for it."""
    written = {}
    for folder in ("sws_jax", "benchmarks", "tests", "configs", "notebooks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Assign) and any(
                    ast.unparse(t)
                    in ("os.environ['XLA_FLAGS']", "os.environ[_VARIABLE]")
                    for t in node.targets
                ):
                    written.setdefault(str(path.relative_to(ROOT)), []).append(
                        ast.unparse(node.value).split("(")[0]
                    )
    assert written == {
        "sws_jax/preview/dry_run.py": [
            "xla_flags.joined",
            "before",
        ],  # and puts it back
        "sws_jax/xla_flags.py": ["merged"],
        "benchmarks/__main__.py": ["xla_flags.joined"],
        "benchmarks/meshes.py": ["xla_flags.joined"],
        "tests/conftest.py": ["xla_flags.joined"],
    }


NAME = FLAG.removesuffix("-reduce")


# As found by running `doctor`'s cases with jaxlib 0.10.2.
@pytest.mark.parametrize(
    "flags, right",
    [
        (NAME, True),
        (f"{NAME}-reduce,-dot", True),
        (f"{NAME}-REDUCE", True),
        (f"{NAME}'-reduce'", True),
        (f"{NAME}-LIBRARY_FUSION_TYPE_REDUCE", True),
        (f"{NAME}-reduce {NAME}-dot", True),
        (f"{NAME}+reduce {NAME}-reduce", True),
        (f"{NAME}-reduce a", True),
        (f"{NAME}-dot", False),
        (f"{NAME}dot", False),
        (f"{NAME}dot,reduce", False),
        (f"{NAME}-reduce {NAME}+reduce", False),
    ],
)
def test_a_value_of_ones_own_is_kept_and_one_that_does_not_help_is_said(
    flags, right, bare, monkeypatch, recwarn
):
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert xla_flags.missing() == ("" if right else FLAG)
    xla_flags.add()
    xla_flags.warn()  # said once
    assert os.environ["XLA_FLAGS"] == flags
    messages = [str(warning.message) for warning in recwarn]
    assert len(messages) == (not right)
    for text in messages:
        assert f"have {FLAG} in XLA_FLAGS, whose own value '" in text
        assert "\n" not in text


def test_a_flag_that_xla_does_not_read_is_missing(bare, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--a=1 b {FLAG}")
    xla_flags.add()
    assert os.environ["XLA_FLAGS"] == f"--a=1 {FLAG}"


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
def recording_add():
    print("jax" in sys.modules)
    add()
xla_flags.add = recording_add
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
import sws_jax.methods.objectives
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
    from sws_jax import expand
    from sws_jax.estimate import flops

    assert sws_jax.estimate.flops is flops and sws_jax.expand is expand
    for name in sws_jax.__all__:
        value = getattr(sws_jax, name)
        assert pickle.loads(pickle.dumps(value)) is value
    with pytest.raises(AttributeError, match="module 'sws_jax' has no attribute 'no'"):
        _ = sws_jax.no
