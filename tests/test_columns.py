"""What rows of results say of training FLOPs, config and code, of new and old runs."""

import json
import pathlib
import shutil
import subprocess

import pytest

from sws_jax.estimate import flops
from sws_jax.jobs import columns, execute, recipes, rows
from sws_jax.models import weights
from sws_jax.runtime import checkout
from sws_jax.specs import Compute
from sws_jax.storage import documents
from sws_jax.version import VERSION

from support import old_files
from support.smallest import NAME, asked

KEPT = old_files.KEPT / "finished"
IMAGES = 1257  # of the digits, for training
REMAT = Compute(remat=True)
SCRATCH = ("scratch-L05-1ep", "scratch-L05-2ep")


def result_of(name, workdir=KEPT):
    return json.loads((workdir / name / "result.json").read_text())


def config_of(name, workdir=KEPT):
    return json.loads((workdir / name / "config.json").read_text())


def written(**changes):
    """The config of a run, as its file holds it, with fields by their dotted names."""
    config = recipes.run()
    config.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in changes.items()}
    )
    return documents.plain(config.to_dict())


def old_results(*names):
    return [columns.completed(result_of(name), str(KEPT)) for name in names]


def test_a_result_of_older_software_is_completed_from_its_directory():
    """By hand: epochs x images x FLOPs of a step, with the teacher's forward."""
    results = old_results("ancestor", "aux", "des-L05", *SCRATCH)
    files = ["weights", "learngene", *["weights"] * 3]
    specs = [
        weights.describe(KEPT / result["name"] / f"{file}.safetensors").spec
        for result, file in zip(results, files, strict=True)
    ]
    teachers, epochs = [None, specs[0], None, None, None], [4, 2, 1, 1, 2]
    for result, spec, teacher, length in zip(
        results, specs, teachers, epochs, strict=True
    ):
        step = flops.step_flops(spec, REMAT, teacher)
        assert result["flops"] == length * IMAGES * step, result["name"]
        assert result["flops_net"] == flops.forward_flops(spec)
        assert result["version"] == ""
    assert specs[1].stages == (1, 2, 1)
    hashes = {result["config_hash"] for result in results}
    assert len(hashes) == len(results) and {len(h) for h in hashes} == {12}
    again = [columns.completed(result, "elsewhere") for result in results]
    assert again == results


def test_what_a_directory_does_not_say_is_left_open(tmp_path):
    shutil.copytree(KEPT, tmp_path / "job")
    run = tmp_path / "job" / "aux"
    (whole,) = old_results("aux")

    def now():
        return columns.completed(result_of("aux"), str(tmp_path / "job"))

    assert now() == whole
    (tmp_path / "job" / "ancestor" / "weights.safetensors").unlink()
    assert now() == {**whole, "flops": None}
    (run / "learngene.safetensors").write_text("damaged")
    assert now() == {**whole, "flops": None, "flops_net": None}
    (run / "config.json").unlink()
    assert (now()["config_hash"], now()["flops"]) == ("", None)


def before(results, *job):
    """`flops_before` of each run, by its name."""
    whole = columns.with_before(results, job, str(KEPT))
    return {result["name"]: result["flops_before"] for result in whole}


def test_a_run_stands_on_the_phases_before_it():
    """It fails where a phase counts twice, or not at all."""
    results = old_results("ancestor", "aux", "des-L05", *SCRATCH)
    own = {result["name"]: result["flops"] for result in results}
    assert before(results) == {
        "ancestor": 0,
        "aux": own["ancestor"],
        "des-L05": own["ancestor"] + own["aux"],
        **dict.fromkeys(SCRATCH, 0),
    }
    # What a job says of its runs counts beside what their configs name.
    first = rows.Run("des-L05", "tune", recipes.run(), after=("aux", "ancestor"))
    assert before(results, first) == before(results)
    unknown = [{**results[0], "flops": None}, *results[1:]]
    assert before(unknown)["des-L05"] is None
    assert before(results[2:])["des-L05"] is None


def test_what_stands_on_a_file_is_not_known():
    results = old_results("ancestor", "aux", "des-L05")
    config = recipes.run()
    config.init.learngene = "some.safetensors"
    after = {"ancestor": ["aux", "des-L05"], "aux": ["des-L05"], "des-L05": []}
    for name, others in after.items():
        known = before(results, rows.Run(name, "", config))
        assert {n for n, value in known.items() if value is None} == {name, *others}
    config = recipes.run()
    config.teacher.path = "other.safetensors"
    job = [rows.Run("aux", "aux", config, after=("ancestor",))]
    assert before(results, *job) == before(results)  # It is not distilled.
    config.loss.kind = "soft"
    assert before(results, *job)["des-L05"] is None


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("done")
    return workdir, execute.execute(*asked(workdir))[0]


def test_a_run_keeps_what_its_directory_says(done):
    """What the run knew itself, and what its files say, are the same."""
    workdir, result = done
    kept = result_of(NAME, workdir)
    own = ("flops", "flops_net", "config_hash")
    older = {k: v for k, v in kept.items() if k not in (*own, "version")}
    read = columns.completed(older, str(workdir))
    assert kept["flops"] > 0 and {n: kept[n] for n in own} == {n: read[n] for n in own}
    assert kept["version"].startswith(VERSION)
    (row,) = old_files.result_rows(workdir)
    assert (row["phase"], row["flops_learn"]) == ("single", "0")
    assert row["flops_tune"] == str(kept["flops"])
    assert [row[n] for n in (*own[1:], "version")] == [
        str(kept[n]) for n in (*own[1:], "version")
    ]


def test_equal_configs_have_one_hash_wherever_they_are_run():
    config = dict(
        data__source="/here/images",
        teacher__path="/here/levit.safetensors",
        loss__kind="soft",
    )
    digest = columns.config_hash(written(**config))
    for harmless in (
        {"name": "other"},
        {"data__source": "gs://there/images/", "data__directory": "/there"},
        {"teacher__path": "levit.safetensors"},
        {"mesh__fsdp": 4, "compute__remat": True, "log_steps": 7},
        {"init__insist": ("width",)},
    ):
        assert columns.config_hash(written(**{**config, **harmless})) == digest
    for other in (
        {"seed": 1},
        {"data__source": "/here/others"},
        {"teacher__path": "run:levit.safetensors"},
        {"compute__dtype": "bfloat16"},
        {"model__depth": 3},
    ):
        assert columns.config_hash(written(**{**config, **other})) != digest, other


def test_the_hash_of_a_config_does_not_change_with_new_fields():
    """A field that is not there has its default, and numbers have one spelling."""
    config = written(seed=3)
    older = {"seed": 3, "model": {"depth": config["model"]["depth"]}}
    assert columns.config_hash(older) == columns.config_hash(config)
    whole = {"schedule": {"total_epochs": 5}, "transform": {"scale": [0, 1]}}
    floats = written(schedule__total_epochs=5.0, transform__scale=(0.0, 1.0))
    assert columns.config_hash(whole) == columns.config_hash(floats)
    untaught = {"seed": 3, "teacher": {"path": "idle"}}
    assert columns.config_hash(untaught) == columns.config_hash(config)


def test_a_teacher_counts_where_its_phase_is_distilled():
    phase = dict(phase__method="tleg", phase__name="tleg-aux")
    alone = written(**phase)
    idle, taught = (
        written(**phase, teacher__path="some.safetensors", loss__kind=kind)
        for kind in ("none", "soft")
    )
    assert columns.config_hash(idle) == columns.config_hash(alone)
    assert columns._needs(idle) == columns._needs(alone) == set()
    assert columns._needs(taught) == {"some.safetensors"}
    assert columns.config_hash(taught) != columns.config_hash(
        written(**phase, loss__kind="soft")
    )
    gone = documents.plain({**idle, "phase": {**idle["phase"], "method": "gone"}})
    assert columns._needs(gone) == {"some.safetensors"}  # It may be used.


def git(folder: pathlib.Path, *words: str) -> str:
    about = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.com"]
    command = ["git", *about, *words]
    answer = subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True
    )
    return answer.stdout.strip()


def test_the_commit_of_a_checkout(tmp_path, monkeypatch):
    assert checkout.describe(tmp_path) == ""
    git(tmp_path, "init", "--quiet")
    assert checkout.describe(tmp_path) == ""  # no commit yet
    file = tmp_path / "file"
    file.write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    git(tmp_path, "tag", "-a", "v1", "-m", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")[:12]
    (tmp_path / "untracked").touch()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "none"))
    assert checkout.describe(tmp_path) == commit
    file.write_text("two")
    assert checkout.describe(tmp_path) == f"{commit}.dirty"
    (tmp_path / "inside").mkdir()
    assert checkout.describe(tmp_path / "inside") == ""
    monkeypatch.setenv("PATH", "")
    assert checkout.describe(tmp_path) == ""
