"""What the README and the other pages show exists, and does what they say."""

import csv
import os
import pathlib
import re
import subprocess
import sys

import pytest

import sws_jax
from sws_jax import sharding, trees
from sws_jax.__main__ import COMMANDS
from sws_jax.data import load_dataset
from sws_jax.data.transforms import Fit
from sws_jax.jobs import commandline
from sws_jax.models.networks import Predictor
from sws_jax.training import evaluation

from support import compiler

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DIGITS = ROOT / "results" / "digits"


@pytest.mark.parametrize(
    "page, name",
    [
        ("README.md", "digits"),
        ("README.md", "natural"),
        ("README.md", "transfer"),
        ("docs/scale.md", "sharding"),
    ],
)
def test_the_table_is_the_one_that_was_printed(page, name):
    path = f"results/{name}/table.md"
    text = (ROOT / page).read_text()
    shown = text.split(f"<!-- {path} -->")[1].split("<!-- end -->")[0]
    assert shown.strip() == (ROOT / path).read_text().strip()


def test_the_stored_learngene_has_the_accuracies_of_the_table():
    gene = sws_jax.load_learngene(str(DIGITS / "learngene.safetensors"))
    data = load_dataset("digits")
    with open(DIGITS / "results.csv") as file:
        rows = [r for r in csv.DictReader(file) if r["run"] == "des-L12"]
    untuned = next(r for r in rows if float(r["epochs"]) == 0)
    assert int(untuned["stored_params"]) == trees.count(gene.params)
    scores = evaluation.evaluate(
        Predictor(sws_jax.expand(gene, depth=12), gene.description.normalization),
        data.test,
        Fit((8, 8)),
        normalization=data.normalization,
        global_batch_size=400,
        mesh=sharding.make_mesh(),
    )
    # One image may change sides where another processor rounds differently.
    assert scores["top1"] == pytest.approx(float(untuned["test_top1"]), abs=0.0026)


def test_every_test_that_a_page_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "scale.md").read_text()))
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    assert len(named) > 20
    assert [name for name in named if f"def {name}(" not in tests] == []


CHECKS = """
assert logits.shape == (4, 10)
assert other.spec.num_classes == 100
assert sorted(d.spec.depth for d in many.values()) == [3, 24]
assert sws_jax.load_network("net.safetensors").spec.depth == 12
"""


def test_the_notebook_lines_run(tmp_path):
    """In a process that starts without the flag, and is not told that it is missing."""
    (lines,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "results").symlink_to(ROOT / "results")
    done = subprocess.run(
        [sys.executable, "-c", lines + CHECKS],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": compiler.flags(8),
        },
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "vit_nano_patch4_L12" in done.stdout


def test_every_command_exists(monkeypatch):
    monkeypatch.chdir(ROOT)
    commands = re.findall(r"-m sws_jax\.main (--config=\S+)", README)
    assert len(commands) >= 6
    for command in commands:
        config, workdir = commandline.parse([command])
        assert workdir == f"runs/{config.name}"
    named = set(re.findall(r"-m sws_jax (\w+)", README))
    assert named == set(COMMANDS)
    for path in re.findall(
        r"`((?:sws_jax|configs|tests|results|notebooks)/[^`*:]*)`", README
    ):
        assert (ROOT / path.split(",")[0]).exists(), path
