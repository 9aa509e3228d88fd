"""The whole flow, teacher to report, through the shipped configs."""

import copy
import csv
import json
import pathlib
import re
import shutil
import signal
import subprocess

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

import sws_jax
from sws_jax import main, sharding
from sws_jax.data import load_dataset
from sws_jax.data.transforms import Fit
from sws_jax.jobs import build, commandline, execute
from sws_jax.jobs.directory import Busy
from sws_jax.models.networks import Predictor
from sws_jax.reports import figures
from sws_jax.storage import documents, files
from sws_jax.storage.names import RESULT
from sws_jax.training.evaluation import evaluate

from support.children import MAIN, ended, environment, until, watched
from support.compare import close
from support.images import png
from support.learngenes import learngene

ROOT = pathlib.Path(__file__).parent.parent
SMALLER = [
    "--config.ancestor.schedule.total_epochs=2",
    "--config.compare.long_epochs=2",
    "--config.compare.depths=(4,)",
    "--config.tune.schedule.total_epochs=1",
    "--config.tune.evaluation.milestones=(0.0,0.5)",
]
# A narrow network and few steps, as what they learn is not looked at.
CHEAPER = ["--config.model.width=16", "--config.global_batch_size=256"]


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """Of eight, which other modules are about, each step would wait for all."""
    with pytest.MonkeyPatch.context() as patch:
        mesh = sharding.make_mesh(jax.devices()[:1])
        patch.setattr(build, "mesh", lambda config: mesh)
        yield


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """configs/smoke.py, once, in its own directory."""
    workdir = tmp_path_factory.mktemp("smoke")
    command = [f"--config={ROOT / 'configs' / 'smoke.py'}", f"--workdir={workdir}"]
    command += [*SMALLER, *CHEAPER]
    assert main.main(command) == 0
    return workdir, command


def table(workdir):
    with open(workdir / "results.csv") as file:
        return list(csv.DictReader(file))


def score(network):
    """Of a network on the test images of digits."""
    data = load_dataset("digits")
    return evaluate(
        Predictor(network, network.description.normalization),
        data.test,
        Fit((8, 8)),
        normalization=data.normalization,
        global_batch_size=400,
        mesh=sharding.make_mesh(),
    )


# By default, test_tleg has a whole job of TLEG and the runs that two methods share, and
# test_add_a_method a job of two methods.
@pytest.mark.slow
def test_a_second_method_shares_what_is_there(job, tmp_path, capsys):
    workdir, command = job
    own = shutil.copytree(workdir, tmp_path / "job")
    again = [*command[:1], f"--workdir={own}", *command[2:]]
    before = (own / "aux" / RESULT).read_bytes()
    assert main.main([*again, "--config.methods=('sws','tleg')"]) == 0
    said = capsys.readouterr().out
    assert re.findall(r"^\[\d/\d\] (.*)$", said, re.MULTILINE) == [
        "tleg-aux", "tleg-des-L04"
    ]  # fmt: skip
    assert (own / "aux" / RESULT).read_bytes() == before
    rows = {row["run"]: row for row in table(own)}
    assert [rows[run]["method"] for run in ("aux", "des-L04")] == ["sws", "sws"]
    assert [rows[f"tleg-{run}"]["method"] for run in ("aux", "des-L04")] == ["tleg"] * 2
    assert rows["tleg-aux"]["network"].startswith("tleg_vit_")
    gene = sws_jax.load_learngene(own / "tleg-learngene.safetensors")
    assert gene.description.teacher == rows["ancestor"]["network"]
    taken, from_run = (
        sws_jax.load_learngene(path)
        for path in (own / "learngene.safetensors", own / "aux/learngene.safetensors")
    )
    assert taken.description == from_run.description


def test_every_run_has_its_rows(job):
    workdir, _ = job
    rows = [(r["run"], r["role"], float(r["epochs"])) for r in table(workdir)]
    expected = [("ancestor", "ancestor", 2.0), ("aux", "aux", 2.0)]
    expected += [("des-L04", "tune", epochs) for epochs in (0.0, 0.5, 1.0)]
    expected += [("scratch-L04-1ep", "scratch_short", 1.0)]
    expected += [("scratch-L04-2ep", "scratch_long", 2.0)]
    assert rows == expected
    for row in table(workdir):
        assert row["test_images"] == "400"
        assert row["profile"] == "consistent"


@pytest.mark.slow
def test_the_whole_flow_as_the_released_code_does_it(tmp_path):
    """The official profile: named in every row, and another net in the descendants."""
    command = f"--config={ROOT / 'configs' / 'smoke.py'}:profile=official"
    level = "--config.compare.level=tune"
    assert main.main([command, f"--workdir={tmp_path}", *SMALLER, level]) == 0
    rows = {(r["run"], float(r["epochs"])): r for r in table(tmp_path)}
    assert {row["profile"] for row in rows.values()} == {"official"}
    gene = sws_jax.load_learngene(str(tmp_path / "learngene.safetensors"))
    assert gene.description.profile == "official"
    aux_loss = [
        float(json.loads(line)["val_loss"])
        for line in (tmp_path / "aux" / "metrics.jsonl").read_text().splitlines()
        if "val_loss" in line
    ]
    assert aux_loss[-1] < aux_loss[0] - 0.01
    assert (gene.description.net.norm_eps, gene.description.net.pool_order) == (
        1e-5,
        "norm_mean",
    )
    tuned = sws_jax.load_network(str(tmp_path / "des-L04" / "weights.safetensors"))
    assert (tuned.spec.norm_eps, tuned.spec.pool_order) == (1e-6, "mean_norm")
    # Its own plan is another function, though the head is inherited.
    aux, untuned = rows["aux", 2.0], rows["des-L04", 0.0]
    own = score(sws_jax.expand(gene, depth=4))
    assert float(untuned["test_loss"]) == pytest.approx(own["loss"], abs=1e-4)
    assert abs(float(aux["test_loss"]) - own["loss"]) > 1e-3
    assert "Profile: official." in (tmp_path / "table.md").read_text()


def test_the_aux_net_is_its_own_expansion(job):
    """The run of the Aux-Net and the untuned descendant at its depth agree."""
    workdir, _ = job
    rows = {(r["run"], float(r["epochs"])): r for r in table(workdir)}
    aux, untuned = rows["aux", 2.0], rows["des-L04", 0.0]
    assert aux["test_top1"] == untuned["test_top1"]
    assert float(aux["test_loss"]) == pytest.approx(
        float(untuned["test_loss"]), abs=1e-4
    )


def test_the_learngene_of_the_job(job):
    workdir, _ = job
    gene = sws_jax.load_learngene(str(workdir / "learngene.safetensors"))
    about = gene.description
    assert about.stages == (1, 2, 1)
    assert about.teacher == "vit_w16h4_patch4_L2"
    assert (about.method, about.dataset) == ("sws", "digits")
    aux = documents.read_json(str(workdir / "aux" / "result.json"))
    assert about.accuracy == pytest.approx(aux["val_top1"], abs=1e-6)
    own = score(sws_jax.expand(gene, depth=4))
    assert own["top1"] == pytest.approx(aux["test"][-1]["top1"])
    stored = {int(r["stored_params"]) for r in table(workdir) if r["role"] == "tune"}
    assert stored == {aux["params"]}


def test_training_moved_what_it_should(job):
    """A tuned descendant shares nothing any more: copies of one gene have parted."""
    workdir, _ = job
    net = sws_jax.load_network(str(workdir / "des-L04" / "weights.safetensors"))
    assert net.description.plan == (0, 1, 1, 2)
    kernel = net.params["blocks"]["mlp"]["fc1"]["kernel"]
    assert not np.array_equal(kernel[1], kernel[2])
    gene = sws_jax.load_learngene(str(workdir / "learngene.safetensors"))
    start = sws_jax.expand(gene, depth=4).params["blocks"]["mlp"]["fc1"]["kernel"]
    close(start, kernel, 0.5)


def test_the_picture(job, tmp_path):
    """Drawn of this job's results: the same again, and another of other results.

    It fails where the picture is drawn before the last run has ended, of other
    results, or of a part of them, as of a job of one run (880 pixels wide).
    """
    workdir, _ = job
    results = [
        {**documents.read_json(str(workdir / run / "result.json")), "role": role}
        for run, role in dict((r["run"], r["role"]) for r in table(workdir)).items()
    ]

    def drawn(results):
        figures.draw(results, str(workdir), str(tmp_path / "report.png"))
        return png(tmp_path / "report.png")

    picture = png(workdir / "report.png")
    assert picture.shape[1] == 1430
    np.testing.assert_array_equal(picture, drawn(results))
    for index, result in enumerate(results):
        other = copy.deepcopy(results)
        other[index]["test"][-1]["top1"] = 0.5 * result["test"][-1]["top1"]
        changed, name = drawn(other), result["name"]
        assert changed.shape != picture.shape or (changed != picture).any(), name


def test_the_same_command_again_does_nothing_twice(job, capsys):
    workdir, command = job
    runs = [p for p in workdir.rglob("*") if p.is_file() and p.parent != workdir]
    before = {p: p.stat().st_mtime_ns for p in runs}
    results = (workdir / "results.csv").read_text()
    assert main.main(command) == 0
    assert {p: p.stat().st_mtime_ns for p in runs} == before
    assert (workdir / "results.csv").read_text() == results
    assert "steps of" not in capsys.readouterr().out


def test_a_lost_result_is_made_again_and_only_that(job):
    workdir, command = job
    other = workdir / "aux" / "result.json"
    before = other.stat().st_mtime_ns
    rows = table(workdir)
    (workdir / "scratch-L04-1ep" / "result.json").unlink()
    assert main.main(command) == 0
    assert other.stat().st_mtime_ns == before
    timed = ("seconds",)
    strip = [{k: v for k, v in r.items() if k not in timed} for r in rows]
    again = [{k: v for k, v in r.items() if k not in timed} for r in table(workdir)]
    assert again == strip


def test_a_lost_learngene_is_named(job, tmp_path, capsys):
    workdir, command = job
    gene = workdir / "aux" / "learngene.safetensors"
    gene.rename(tmp_path / gene.name)
    try:
        assert main.main(command) == 2
    finally:
        (tmp_path / gene.name).rename(gene)
    assert f"aux is finished, but {gene} is gone" in capsys.readouterr().err


@pytest.mark.parametrize(
    "override, words",
    [
        ("--config.compare.depths=(4,0)", "compare.depths must be at least 1"),
        ("--config.model.stages=(0,1)", "model.stages must be at least 1"),
        ("--config.init.plan=(0,1)", "init.plan belongs to one run"),
        ("--config.seed=7", "holds a run with another config (it differs in seed)"),
        ("--config.scratch.evaluation.select=bset", "is not one of last, best"),
    ],
)
def test_a_job_is_refused_before_its_first_run(override, words, job, capsys):
    workdir, command = job
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}
    field = override.split("=")[0]
    command = [argument for argument in command if not argument.startswith(field)]
    assert main.main([*command, override]) == 2
    assert words in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*")} == before


def test_a_directory_of_something_else_is_left_as_it_is(tmp_path, capsys):
    """Another program's config.json, refused; without one, nothing is left there."""
    config = f"--config={ROOT / 'configs' / 'smoke.py'}"
    path = tmp_path / "mine" / "config.json"
    path.parent.mkdir()
    path.write_text('{"my": "model"}')
    assert main.main([config, f"--workdir={path.parent}"]) == 2
    assert "holds a job with another config (it differs in" in capsys.readouterr().err
    assert path.read_text() == '{"my": "model"}'
    path.rename(path.with_name("notes.json"))
    wrong = "--config.data.source=nope"
    assert main.main([config, wrong, f"--workdir={path.parent}"]) == 2
    assert [p.name for p in path.parent.iterdir()] == ["notes.json"]
    assert main.main([config, wrong, f"--workdir={tmp_path / 'a' / 'b'}"]) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_job_may_grow(job, tmp_path):
    """More depths to compare are more runs; another job is refused."""
    workdir, command = job
    shutil.copytree(workdir, tmp_path / "work")
    command = [c for c in command if not c.startswith(("--workdir", "--config.comp"))]
    more = ["--config.compare.depths=(4,2)", "--config.compare.level=untuned"]
    assert main.main([*command, *more, f"--workdir={tmp_path / 'work'}"]) == 0
    assert (tmp_path / "work" / "untuned-L02" / "result.json").exists()


@pytest.mark.slow
def test_two_processes_share_out_the_runs(job, tmp_path):
    """The same command twice: the second leaves the first its run, and does the rest.

    The first is halted in the midst of a run, which leaves nothing to chance. It fails
    where a run is not claimed (then the second trains it too), where a run of another
    job is waited for before the next (then nothing more is done), and where what
    another job did is done again.
    """
    workdir, command = job
    for name in ("ancestor", "aux"):
        shutil.copytree(workdir / name, tmp_path / name)
    command = [c for c in command if not c.startswith("--workdir")]
    command = [*MAIN, *command, f"--workdir={tmp_path}", "--parallel=1"]

    def started():
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    first = started()
    until(first, "des-L04: vit_")
    first.send_signal(signal.SIGSTOP)
    second = started()
    done = []
    with watched(second):
        for line in second.stdout:
            done.append(line)
            if "waiting for other jobs, which are at des-L04" in line:
                break
    first.send_signal(signal.SIGCONT)
    ends = [ended(first), ended(second)]
    assert [end.code for end in ends] == [0, 0], ends
    by_second = "".join(done)
    for name in ("scratch-L04-1ep", "scratch-L04-2ep"):
        assert f"{name}: test top-1" in by_second
        assert f"{name}: vit_" not in ends[0].out
    assert "des-L04: test top-1" in ends[0].out
    assert "des-L04: vit_" not in by_second + ends[1].out
    rows = [
        [{k: v for k, v in r.items() if k != "seconds"} for r in table(folder)]
        for folder in (workdir, tmp_path)
    ]
    assert rows[0] == rows[1]
    assert not list(tmp_path.rglob("lock"))


def test_waiting_is_said_once(monkeypatch, tmp_path, capsys):
    """Of a run that another job is at: asked for quietly until it is done."""
    config = commandline.parse([f"--config={ROOT / 'configs' / 'smoke.py'}:"])[0]
    config.compare.update(level="untuned", depths=(4,))
    asked: list[str] = []

    def busy_at_first(run, *args, **kwargs):
        asked.append(run.name)
        if run.name == "aux" and asked.count("aux") < 4:
            raise Busy("another job")
        if run.name == "aux":
            gene = str(tmp_path / "aux" / "learngene.safetensors")
            sws_jax.save_learngene(gene, learngene((1, 2, 1)))
        return {"name": run.name}

    monkeypatch.setattr(execute.train, "train", busy_at_first)
    monkeypatch.setattr(execute, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(execute.report, "write", lambda results, workdir: None)
    monkeypatch.setattr(execute.report, "sentence", lambda result: "done")
    execute.execute(config, str(tmp_path))
    out = capsys.readouterr().out
    assert out.count("waiting for other jobs, which are at aux") == 1
    assert asked == ["ancestor", "aux", "aux", "aux", "aux", "untuned-L04"]


@pytest.mark.slow
def test_carried_to_another_dataset(job, tmp_path):
    """configs/transfer.py on arrays of one's own: other classes, other size."""
    workdir, _ = job
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = images.repeat(2, axis=1).repeat(2, axis=2)[:300]
    labels = digits.target[:300] % 3
    np.savez(
        tmp_path / "data.npz",
        train_images=images[:200],
        train_labels=labels[:200],
        test_images=images[200:],
        test_labels=labels[200:],
        class_names=["zero", "one", "two"],
    )
    gene = workdir / "learngene.safetensors"
    config = f"{ROOT / 'configs' / 'transfer.py'}:learngene={gene},"
    config += f"dataset={tmp_path / 'data.npz'},depths=2,epochs=2,compare=full"
    target = tmp_path / "work"
    # From scratch the network is that of the learngene too, a quarter as wide as the
    # recipe's.
    arguments = ["--config.compare.long_epochs=3", "--config.model.width=16"]
    arguments.append(f"--workdir={target}")
    assert main.main([f"--config={config}", *arguments]) == 0
    rows = {r["role"]: r for r in table(target)}
    assert rows["tune"]["dataset"] == rows["scratch_long"]["dataset"] == "data"
    net = sws_jax.load_network(str(target / "des-L02" / "weights.safetensors"))
    assert net.description.class_names == ("zero", "one", "two")
    assert net.spec.image_size == (16, 16)
    assert net.description.plan == (0, 2)


def test_what_else_a_directory_holds_is_no_row(job, tmp_path):
    """A run beside a comparison, or one that it started from."""
    done = documents.read_json(str(job[0] / "aux" / RESULT))
    for role in ("aux", "single", "tune"):
        path = str(tmp_path / f"of-{role}" / RESULT)
        files.write_json(path, {**done, "name": f"of-{role}", "role": role})
    besides = execute._other_runs([], str(tmp_path))
    assert [result["name"] for result in besides] == ["of-aux", "of-tune"]
    for before, listed in (([], []), (["of-aux"], ["of-aux"])):
        whole = [{**result, "before": before} for result in besides]
        names = [result["name"] for result in execute._listed(whole, ())]
        assert names == [*listed, "of-tune"]


def test_a_smaller_comparison_keeps_the_finished_rows(tmp_path):
    """Also where older software wrote the results, which then have no role."""
    path = str(tmp_path / "gene.safetensors")
    sws_jax.save_learngene(path, learngene((1, 2)))
    argument = f"learngene={path},dataset=digits,compare=untuned,depths"
    command = [f"--config={ROOT}/configs/transfer.py:{argument}"]
    work = tmp_path / "work"

    def rows(depths):
        argv = [f"{command[0]}={depths}", f"--workdir={work}"]
        assert main.main(argv) == 0
        return [(row["run"], row["role"]) for row in table(work)]

    both = [("untuned-L01", "untuned"), ("untuned-L02", "untuned")]
    assert rows("1-2") == both
    assert rows("1") == both
    older = work / "untuned-L02" / "result.json"
    result = documents.read_json(str(older))
    assert result.pop("role") == "untuned"
    files.write_json(str(older), result)
    assert rows("1") == both
    assert rows("2") == both[::-1]
    assert "| 1 " in (work / "table.md").read_text().replace("  ", "")
