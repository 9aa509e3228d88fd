"""What needs no JAX is answered without it: help, mistakes, and errors' own module."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from sws_jax.__main__ import COMMANDS

ROOT = pathlib.Path(__file__).parent.parent
HEAVY = {
    "jax", "jaxlib", "flax", "optax", "orbax", "matplotlib", "tensorflow", "torch"
}  # fmt: skip
# They are light enough for an answer about a config, and help needs none of them.
UNASKED = HEAVY | {"numpy", "ml_collections", "absl", "yaml"}

# Prints, for each case in turn, its exit code and what is loaded after it.
PROGRAM = """
import contextlib, io, sys
for argv, code in CASES:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            ended = main(argv)
        except SystemExit as end:
            ended = end.code
    assert ended == code, (argv, ended, shown.getvalue())
    assert shown.getvalue(), argv
    loaded = sorted(HEAVY & set(sys.modules))
    assert not loaded, (argv, loaded)
print(len(CASES), "answered")
"""


def answered(source, cases, heavy):
    """Runs cases of a command in one process of their own."""
    program = f"{source}\nCASES = {cases!r}\nHEAVY = {heavy!r}\n{PROGRAM}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{len(cases)} answered\n", done.stderr


CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.py"))
NEEDED = {
    "des_deit.py": "learngene=GENE",
    "transfer.py": "learngene=GENE,dataset=DATA.npz",
}


def test_help_loads_next_to_nothing():
    help_of_runs = [([], 2), (["--help"], 0), (["-h"], 0)]
    answered("from sws_jax.main import main", help_of_runs, UNASKED)
    tools = "from sws_jax.__main__ import main"
    cases = [(["--help"], 0)]
    cases += [([command, "--help"], 0) for command in COMMANDS]
    cases += [(["evaluate"], 2), (["predict", "x", "y", "--top=many"], 2)]
    answered(tools, cases, UNASKED)
    check = "from benchmarks.accelerator.__main__ import main"
    answered(check, [(["--help"], 0), (["--toy"], 2)], UNASKED)


def test_mistakes_in_a_config_are_answered_without_jax():
    """Each shipped config is loaded for it, with all that it imports."""
    cases = [
        (["--workdir=x"], 2),
        (["--config=configs/nothing.py"], 2),
        (["--config=configs/smoke.py", "--num_processes=2"], 2),
    ]
    for name in CONFIGS:
        config = f"--config=configs/{name}:{NEEDED.get(name, '')}"
        mistakes = ("--nothing=1", "--config.nothing=1", "--config.seed=x")
        cases += [([config, mistake], 2) for mistake in mistakes]
    cases += [(["--config=configs/smoke.py", "--config.model.stages=3-3"], 2)]
    answered("from sws_jax.main import main", cases, HEAVY)
    wrong = ("--config=configs/nothing.py", "--config=configs/smoke.py --config.no=1")
    tools = ("cost", "doctor", "show_batch")  # those that take a config
    cases = [([tool, *flags.split()], 2) for tool in tools for flags in wrong]
    answered("from sws_jax.__main__ import main", cases, HEAVY)


@pytest.mark.parametrize("module", ["sws_jax.main", "sws_jax"])
def test_help_of_the_program_itself(module):
    """As it is started, with each module that Python says it loads."""
    command = [sys.executable, "-X", "importtime", "-m", module, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    loaded = {
        name.split(".")[0] for name in re.findall(r"\| +(\S+)$", done.stderr, re.M)
    }
    assert "sws_jax" in loaded and not UNASKED & loaded


NAMES = """
import sys
def loaded():
    return sorted(HEAVY & set(sys.modules))
import sws_jax, sws_jax.errors, sws_jax.specs
from sws_jax import UserError, ViTSpec, named, specs, xla_flags
assert named("vit_small_patch16_L12") == ViTSpec(depth=12)
assert not loaded(), loaded()
assert set(dir(sws_jax)) >= set(sws_jax.__all__)
assert not loaded(), loaded()
from sws_jax.jobs import commandline, recipes
assert not {"jax", "flax"} & set(sys.modules)
from sws_jax import expand
assert "jax" in sys.modules and expand is sws_jax.expand
assert ViTSpec(depth=1).build() and "flax" in sys.modules
"""


def test_public_names_load_on_use():
    done = subprocess.run(
        [sys.executable, "-c", f"HEAVY = {UNASKED!r}\n{NAMES}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
