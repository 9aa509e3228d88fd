"""Every field has its range, and what lies outside is refused by name."""

import math
import pathlib

import pytest

from sws_jax.arguments import Range
from sws_jax.errors import UserError
from sws_jax.jobs import (
    build,
    check,
    commandline,
    fields,
    preflight,
    recipes,
    reference,
    remarks,
)
from sws_jax.jobs.rows import runs
from sws_jax.training.durations import Durations

ROOT = pathlib.Path(__file__).parent.parent
NUMBERS = [n for n, f in fields.RUN.items() if type(f.default) in (int, float)]


def config_with(name, value):
    config = recipes.run()
    group, _, field = name.rpartition(".")
    with config.unlocked():
        (config[group] if group else config)[field] = value
    return config


def test_the_table_is_the_config_and_every_number_has_a_range():
    assert set(commandline.fields(recipes.run())) == set(fields.RUN)
    assert [n for n in NUMBERS if not fields.RUN[n].range] == []
    check.check(recipes.run())


def test_every_field_says_what_it_means_and_belongs_to_a_group():
    for table, groups in (
        (fields.RUN, fields.GROUPS),
        (fields.JOB, fields.JOB_GROUPS),
    ):
        assert {name.rpartition(".")[0] for name in table} == set(groups)
        assert [name for name, field in table.items() if len(field.meaning) < 10] == []
        assert [n for n, f in table.items() if f.meaning[-1] != "."] == []


@pytest.mark.parametrize(
    "field, words",
    [
        (fields.RUN["data.decoder"], "pillow or opencv"),
        (fields.RUN["loss.kind"], "none, soft or hard"),
        (fields.RUN["transform.flip"], "True or False"),
        (fields.RUN["name"], "text"),
        (fields.RUN["data.workers"], "a whole number, 0 to 4,096"),
        (fields.RUN["ema"], "a number, at least 0, below 1"),
        (fields.RUN["data.memory_gib"], "a number, at least 0"),
        (fields.RUN["data.std"], "numbers, each above 0, at most 10"),
        (fields.RUN["schedule.rate"], "a number, 0 to 1e+30"),
        (fields.RUN["init.insist"], "names"),
        (
            fields.RUN["transform.scale"],
            "two numbers, the smaller one first, each above 0, at most 1",
        ),
    ],
)
def test_what_a_field_may_be_in_words(field, words):
    assert field.values == words


def test_a_range_says_its_ends():
    assert Range(1, 2, open_high=True).words == "at least 1, below 2"
    assert Range(-1, 2**20).words == "-1 to 1,048,576"


def test_help_lists_every_field_within_the_width_of_a_terminal():
    lines = reference.listing().splitlines()
    assert max(map(len, lines)) <= reference.WIDTH == 88
    assert not [line for line in lines if line != line.rstrip()]
    text = " ".join(reference.listing().split())
    for name, field in {**fields.RUN, **fields.JOB}.items():
        shown = reference.shown(field.default)
        resume = "; may change on resume" if field.resume else ""
        assert f" {name}={shown} ({field.values}{resume}" in text
        assert field.meaning in text


def test_the_page_of_fields_is_what_the_table_says():
    page = (ROOT / reference.PATH).read_text(encoding="utf-8")
    assert page == reference.page(), "python -m sws_jax.jobs.reference rewrites it"
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) == len(fields.RUN) + len(fields.JOB)
    assert all(row.count("|") == 6 for row in rows)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_outside_is_refused_by_name(name):
    span, whole = fields.RUN[name].range, type(fields.RUN[name].default) is int
    low = span.low if span.open_low else span.low - (1 if whole else 1e-3)
    high = span.high if span.open_high else span.high * 1.001 + (1 if whole else 0)
    for value in (low, *([] if math.isinf(high) else [high])):
        with pytest.raises(UserError) as refusal:
            check.check(config_with(name, int(value) if whole else value))
        assert str(refusal.value).startswith(f"{name} must be ")


@pytest.mark.parametrize(
    "name, value",
    [
        ("transform.scale", (0.5, 0.1)),
        ("transform.ratio", (1.0,)),
        ("augment.erase_area", (0.1, "x")),
        ("data.mean", (123.7,)),
        ("data.std", (0.0,)),
        ("schedule.rate", math.nan),
        ("evaluation.milestones", (-1.0,)),
    ],
)
def test_nonsense_is_refused_by_name(name, value):
    with pytest.raises(UserError, match=rf"^{name} "):
        check.check(config_with(name, value))


@pytest.mark.parametrize(
    "name",
    [".", "..", "", "a/b", "a\\b", "a\0b", "a\nb", "é" * 128, ".x", "lock", "table.md"],
)
def test_a_name_stays_in_the_work_directory(name):
    with pytest.raises(UserError, match="^name is the run's .* cannot be"):
        check.check(config_with("name", name))


def test_a_run_has_an_end():
    config = config_with("global_batch_size", 1)
    config.schedule.total_epochs = 1e6
    durations = Durations(2**20, 1)
    with pytest.raises(UserError, match="total_epochs 1e.06 is .* at most 2,147"):
        build.check_length(config, durations, build.schedule(config, durations))


def remarks_on(file, *flags):
    argv = [f"--config=configs/{file}", *(f"--config.{flag}" for flag in flags)]
    config, _ = commandline.parse(argv)
    return remarks.of_named(config, commandline.named(argv), runs(config))


# What else makes a field do nothing, where the config itself does not.
UNUSED = {
    "transform.padding": ["transform.crop=none"],
    "data.threads": ["data.workers=1"],
    "schedule.warmup_rate": ["schedule.warmup_epochs=0"],
    "schedule.minimum": ["schedule.kind=constant"],
    "checkpoint.keep_last": ["checkpoint.every_epochs=0"],
    "model.depth": ["model.stages=(2,1)"],
    "replay.every_steps": ["schedule.total_epochs=0"],
}


@pytest.mark.parametrize(
    "flag, cure",
    [
        ("transform.scale=(0.1,1.0)", "transform.crop=resized"),
        ("transform.magnitude=3", "transform.randaugment=2"),
        ("augment.mix_group=8", "augment.mixup=0.1"),
        ("augment.erase_area=(0.1,0.2)", "augment.erase=0.1"),
        ("loss.tau=2", "loss.kind=soft"),
        ("data.cache=x", "data.source=tfds:mnist"),
        ("data.decoder=pillow", "data.source=a_folder"),
        ("ema_start=seed", "ema=0.9"),
        ("model.init_std=0.1", "model.weight_init=normal"),
        ("transform.padding=2", "transform.crop=padded"),
        ("data.threads=2", "data.workers=0"),
        ("loss.alpha=0.5", "loss.kind=hard"),
        ("schedule.warmup_rate=0.1", "schedule.warmup_epochs=1"),
        ("schedule.minimum=0.1", "schedule.kind=cosine"),
        ("checkpoint.keep_last=3", "checkpoint.every_epochs=1"),
        ("model.depth=3", "model.stages=()"),
        ("replay.every_steps=5", "schedule.total_epochs=1"),
    ],
)
def test_a_field_that_was_set_and_does_nothing_is_told(flag, cure):
    name = flag.partition("=")[0]
    (line,) = remarks_on("scratch_deit.py", *UNUSED.get(name, ()), flag)
    assert line.startswith(f"{name}=") and "is not used: " in line
    assert not [
        line for line in remarks_on("scratch_deit.py", flag, cure) if name in line
    ]


def test_groups_that_no_row_uses_are_told():
    flags = "tune.seed=1", "compare.level=untuned", "scratch.ema=0.5"
    assert "scratch.ema=0.5 is not used: compare.level is not full" in remarks_on(
        "smoke.py", *flags
    )
    assert remarks_on("smoke.py", "scratch.ema=0.5", "tune.schedule.rate=0.1") == []


CONFIGS = {
    "ancestor_vit.py": "dataset=digits",
    "aux_deit.py": "dataset=digits,teacher=x",
    "scratch_deit.py": "dataset=digits",
    "transfer.py": "dataset=digits,learngene=x,compare=full",
    "des_deit.py": "dataset=digits,learngene=x",
}


@pytest.mark.parametrize("variant", ["digits", "32px", "Ti/16", "S/16", "B/16"])
@pytest.mark.parametrize("profile", ["consistent", "official"])
def test_the_shipped_recipes_lie_inside(variant, profile):
    for file, argument in CONFIGS.items():
        arguments = f"variant={variant},profile={profile},{argument}"
        config = commandline.load(f"configs/{file}:{arguments}")
        for run in runs(config):
            check.check(run.config)


@pytest.mark.parametrize(
    "flag", ["tune.schedule.rate=-1", "scratch.augment.mixup=-1", "tune.ema=1.0"]
)
def test_a_group_of_changes_is_held_to_the_same_ranges(flag):
    argv = ["--config=configs/smoke.py", f"--config.{flag}"]
    config, _ = commandline.parse([*argv, "--config.compare.level=full"])
    name = flag.partition(".")[2].partition("=")[0]
    with pytest.raises(UserError, match=f"{name} must be "):
        preflight.check(config, runs(config))
