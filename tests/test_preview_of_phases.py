"""Dry run, ``cost`` and ``doctor`` on phases of every kind, with nothing trained."""

import json
import pathlib
import re

import pytest

from sws_jax import __main__ as tools
from sws_jax import doctor, main, specs
from sws_jax.errors import UserError
from sws_jax.estimate import flops
from sws_jax.jobs import build, check, commandline, remarks
from sws_jax.jobs.rows import runs
from sws_jax.methods import base, learngenes
from sws_jax.methods.base import ANCESTOR, Made, Phase
from sws_jax.methods.objectives import Loss
from sws_jax.models import networks
from sws_jax.pixels import Normalization
from sws_jax.preview.survey import Survey
from sws_jax.runtime import words
from sws_jax.specs import AuxViTSpec, variants
from sws_jax.training import step

from support.digits import network_of
from support.examinations import examined, expect
from support.formulas import NANO, S12, formula, forward, patch_flops
from support.methods import (
    Kinds,
    Searched,
    shorter,
    stitched,
)
from support.networks import TINY, params_of

CONFIG = f"--config={pathlib.Path(__file__).parent.parent}/configs/aux_deit.py"
TEACHER = specs.named("vit_base_patch16_L12")
SIZES = f"variant=S/16,dataset=tfds:none,teacher={TEACHER.name},depths=6,stages=2-2"
RGB = Normalization((0.5,) * 3, (0.5,) * 3)
STAGES = (2, 2)
AUX = specs.AuxViTSpec(S12.replace(depth=4), STAGES)


@pytest.fixture(autouse=True)
def methods(monkeypatch):
    for method in (Kinds(), Searched()):
        monkeypatch.setitem(learngenes.METHODS, method.name, method)


def printed(capsys, *argv):
    assert tools.main(["cost", *map(str, argv)]) == 0
    return capsys.readouterr().out


def costs(capsys, *argv):
    """What ``cost`` says of runs, by their names, and its notes."""
    told = json.loads(printed(capsys, *argv, "--json"))
    return {row["run"]: row for row in told["runs"]}, told["ways"], told["notes"]


def step_of(net):
    """FLOPs of a step: nothing goes back to the pixels."""
    return 3 * forward(net) - patch_flops(net)


def stitched_step(spec):
    """As `step_of`, of segments with a linear map between."""
    first, second = spec.segments
    blocks = forward(first.replace(num_classes=0)) + forward(second)
    blocks -= patch_flops(second)
    stitch = 2 * first.tokens * first.width * second.width
    return 3 * (blocks + stitch) - patch_flops(first)


def own_of(net, teacher):
    """Parameters of `Mapped`, and FLOPs of its map and of the gradients of that."""
    products = 2 * net.tokens * net.width * teacher.width
    return (net.width + 1) * teacher.width, 3 * products


def test_costs_of_every_kind_at_the_papers_size(capsys):
    rows, ways, notes = costs(capsys, f"{CONFIG}:{SIZES},methods=kinds")
    spec = stitched(S12)
    assert rows["narrow"]["step_flops"] == step_of(spec.stem)
    count, products = own_of(S12, TEACHER)
    assert rows["stitched"]["step_flops"] == (
        stitched_step(spec) + products + forward(TEACHER)
    )
    assert rows["stitched"]["parameters"] == flops.params(spec) + count
    assert f"stitched: {count:,} parameters are its objective's own" in notes
    # Every second step computes the Aux-Net with a block less, too.
    both = step_of(AUX.net) + step_of(shorter(AUX).net)
    assert rows["elastic"]["step_flops"] == (step_of(AUX.net) + both) / 2
    assert rows["elastic"]["parameters"] == formula(AUX)
    (note,) = [note for note in notes if "variants" in note]
    assert note.startswith("elastic: 2 variants in 2 programs: ")
    assert ways["learngene"]["stored"] == formula(AUX)
    assert ways["learngene"]["flops"] == sum(
        rows[name]["flops"] for name in ("narrow", "stitched", "elastic")
    )


def test_costs_of_what_only_numbers_tell(capsys):
    """The learngene is not known before; its phase starts as a network by name."""
    arguments = SIZES.replace(TEACHER.name, "vit_small_patch16_L14")
    rows, ways, notes = costs(capsys, f"{CONFIG}:{arguments},methods=searched-kinds")
    assert rows["search"]["network"] == "vit_small_patch16_L14"
    assert rows["search"]["epochs"] == rows["search"]["flops"] == 0
    assert rows["search"]["step_flops"] is None
    unknown = "what search leaves is not known before it is trained: the networks are"
    assert any(note.startswith(unknown) for note in notes)
    assert "stored" not in ways["searched"] and "stored" in ways["kinds"]
    assert "stored parameters of the learngene: not known" in notes
    assert rows["searched-untuned-L06"]["network"] == "vit_small_patch16_L6"


class Pretrained(base.Method):
    """A network of each depth is trained alone, and then tuned."""

    name = "pretrained"

    def phases(self, net, request, depths):
        return tuple(
            Phase(f"pretrained-L{d}", net.replace(depth=d), depth=d) for d in depths
        )

    def start(self, depth):
        return base.FromRun(f"pretrained-L{depth}")


def test_what_is_kept_without_a_learngene_is_every_network(capsys, monkeypatch):
    monkeypatch.setitem(learngenes.METHODS, "pretrained", Pretrained())
    sizes = SIZES.replace("depths=6", "depths=6-12")
    rows, ways, notes = costs(capsys, f"{CONFIG}:{sizes},methods=pretrained-sws")
    kept = [rows[f"pretrained-L{depth}"]["parameters"] for depth in (6, 12)]
    assert ways["pretrained"]["stored"] == sum(kept)
    assert ways["sws"]["stored"] == formula(AUX)
    assert not any("learngene" in note for note in notes)


def test_costs_without_a_teacher_that_is_known(capsys):
    arguments = SIZES.replace(TEACHER.name, "none.safetensors")
    rows, _, notes = costs(capsys, f"{CONFIG}:{arguments},methods=kinds")
    spec = stitched(S12)
    assert rows["stitched"]["step_flops"] == stitched_step(spec)
    assert rows["stitched"]["parameters"] == flops.params(spec)
    (note,) = [note for note in notes if "of stitched: not counted" in note]
    assert note.startswith("objective and forward of the teacher of stitched: ")
    given = costs(
        capsys, f"{CONFIG}:{arguments},methods=kinds", f"--teacher={TEACHER.name}"
    )
    _, products = own_of(S12, TEACHER)
    added = given[0]["stitched"]["step_flops"] - rows["stitched"]["step_flops"]
    assert added == products + forward(TEACHER)


@pytest.mark.slow
def test_costs_of_files_of_every_kind(tmp_path, capsys):
    """A stitched network, and an Aux-Net that is expanded from its genes."""
    expanded = specs.ExpandedSpec(NANO, (NANO.depth,), "tleg")
    for spec in (stitched(NANO), expanded):
        path = tmp_path / f"{spec.family}.safetensors"
        about = learngenes.describe(spec, normalization=RGB)
        networks.save_network(path, networks.Network(spec, params_of(spec), about))
        (row,) = json.loads(printed(capsys, path, "--json"))
        assert row["parameters"] == flops.params(spec)
        assert row["step_flops"] == flops.step_flops(spec)
        assert row["activation_bytes"] == flops.activation_bytes(spec)
    assert row["network"] == "tleg_vit_nano_patch8_L2"
    assert row["forward_flops"] == forward(NANO)  # which an expansion adds nothing to


def test_doctor_at_the_papers_size(tmp_path):
    """The teacher has a size by its name, though it has no weights."""
    findings = examined(
        tmp_path,
        f"{CONFIG}:{SIZES},methods=kinds",
        "--config.global_batch_size=8",
        "--config.augment.mix_group=0",
        checks=["mesh", "teacher", "weights", "disk", "memory"],
    )
    expect(findings["teacher"][0], doctor.PROBLEM, f"no weights file {TEACHER.name}")
    trained = [finding.text for finding in findings["weights"]]
    assert "the job trains narrow first, for stitched, elastic" in trained
    (disk,) = findings["disk"]
    expect(disk, doctor.OK)
    own, several, *_, total = findings["memory"]
    count, _ = own_of(S12, TEACHER)
    expect(own, doctor.OK, f"stitched: {count:,} parameters are its objective's own")
    expect(several, doctor.OK, "elastic: 2 variants in 2 programs")
    parameters = words.size(4 * (flops.params(stitched(S12)) + count))
    expect(total, doctor.OK, "stitched: about", f"({parameters} parameters, ")


def dry_run(capsys, *argv):
    code = main.main([*argv, "--config.mesh.dry_run=8"])
    out, error = capsys.readouterr()
    assert (code, error) == (0, "")
    return out


def cells(text, name):
    (line,) = [line for line in text.splitlines() if line.startswith(name + " ")]
    return re.split("  +", line)[1:]


class Uncompiled:
    """What a dry run reads of a compiled step; nothing is compiled for it."""

    def __init__(self, recipe, mesh, size, teacher, students):
        self.recipe = recipe
        USED.append(recipe)

    def as_text(self):
        return ""

    def memory_analysis(self):
        return None  # as JAX where a backend has no analysis


USED = []  # recipes of the steps that were asked for


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_a_dry_run_of_every_kind_on_digits(compiled, tmp_path, capsys, monkeypatch):
    """The ancestor of the job is known, and with it all that starts from it."""
    monkeypatch.chdir(tmp_path)
    if not compiled:
        USED.clear()
        monkeypatch.setattr(step, "program", Uncompiled)
    argv = ["--config.model.width=16", "--config.model.heads=2"]
    argv += ["--config.model.depth=2", "--config.model.stages=(2,1)"]
    argv += ["--config.ancestor.model.depth=2", "--config.global_batch_size=64"]
    job = f"{CONFIG}:methods=kinds-searched-tleg,compare=untuned,depths=2"
    text = dry_run(capsys, job, *argv)
    config, workdir = commandline.parse([job, *argv])
    survey = Survey(config, workdir)
    nets = {row.name: survey.spec(row) for row in runs(config)}
    ancestor = nets["ancestor"]
    assert nets["search"].replace(drop_path=0.0) == ancestor
    count, _ = own_of(nets["stitched"].tail, ancestor)
    assert f"stitched: {count:,} parameters are its objective's own" in text
    assert "elastic: 2 variants in 2 programs: memory is that of the largest" in text
    for name in ("narrow", "stitched", "elastic", "tleg-aux"):
        parameters = 4 * (flops.params(nets[name]) + count * (name == "stitched"))
        held = cells(text, name)
        assert held[:2] == [words.size(parameters), words.size(2 * parameters + 4)]
        taught = name in ("stitched", "tleg-aux")
        teacher = words.size(4 * flops.params(ancestor)) if taught else "-"
        assert held[3] == teacher
        assert (held[-1] != "-") == compiled  # what it sends
    if not compiled:
        both = variants.computations((nets["elastic"], shorter(nets["elastic"])))
        (elastic,) = [r for r in USED if r.spec == nets["elastic"]]
        assert elastic.forms == tuple(c.form for c in both)
    assert "no step is trained: search and 3 more" in text
    assert "what search leaves is not known before it is trained" in text
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_dry_run_of_every_kind_at_the_papers_size(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = dry_run(capsys, f"{CONFIG}:{SIZES},methods=kinds-tleg")
    count, _ = own_of(S12, TEACHER)
    parameters = 4 * (flops.params(stitched(S12)) + count)
    assert cells(text, "stitched")[0] == words.size(parameters)
    assert cells(text, "elastic")[0] == words.size(4 * formula(AUX))
    teacher = words.size(4 * flops.params(TEACHER))
    assert cells(text, "stitched")[3] == cells(text, "tleg-aux")[3] == teacher


@pytest.mark.slow
def test_doctor_of_every_kind_on_digits(tmp_path):
    findings = examined(
        tmp_path,
        f"{CONFIG}:methods=kinds-searched-tleg,compare=untuned,depths=2",
        checks=["mesh", "data", "teacher", "weights", "disk", "memory"],
    )
    everything = [finding for lines in findings.values() for finding in lines]
    assert {finding.state for finding in everything} == {doctor.OK}
    texts = [finding.text for finding in everything]
    assert "stitched: the job trains it itself (ancestor)" in texts
    assert "the job trains narrow first, for stitched, elastic" in texts
    assert "the job trains search first, for searched-untuned-L02" in texts


class Cut(Kinds):
    """An Aux-Net that is computed from the ancestor, and trained on labels."""

    name, prefix = "cut", "cut-"

    def phases(self, net, request, depths):
        start = Made(lambda trained, images: {}, after=(ANCESTOR,))
        spec = AuxViTSpec(net.replace(depth=sum(request.stages)), request.stages)
        return (Phase("cut", spec, Loss(), start=start),)


def test_a_start_that_is_computed_from_a_file(tmp_path, monkeypatch):
    """Of a job that trains no ancestor; no loss has use for the teacher."""
    monkeypatch.setitem(learngenes.METHODS, Cut.name, Cut())
    path = tmp_path / "ancestor.safetensors"
    job = f"{CONFIG}:methods=cut,teacher={path},compare=untuned,depths=2"
    findings = examined(tmp_path / "work", job, checks=["teacher", "weights"])
    expect(findings["weights"][0], doctor.PROBLEM, f"no weights file {path}")
    spec = specs.ViTSpec(depth=2, **TINY)
    networks.save_network(path, network_of(spec))
    findings = examined(tmp_path / "work", job, checks=["teacher", "weights"])
    line = f"{path}: {spec.name}, from which cut is computed"
    assert line in [finding.text for finding in findings["weights"]]
    expect(findings["teacher"][0], doctor.OK, "no run is distilled")
    row, *_ = runs(commandline.parse([job])[0])
    lengths = build.durations(row.config, 1000)
    lines = remarks.of_run(row.config, lengths, build.schedule(row.config, lengths))
    assert not [line for line in lines if "teacher" in line]


def test_a_phase_without_the_teacher_that_it_needs(monkeypatch):
    config, _ = commandline.parse([f"{CONFIG}:methods=kinds"])
    (row,) = [row for row in runs(config) if row.name == "stitched"]
    row.config.teacher.path = ""
    with pytest.raises(UserError, match="phase stitched of kinds needs a teacher"):
        check.check_teacher(row.config)
