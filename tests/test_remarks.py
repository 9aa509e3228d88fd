"""What settings do that a user may not think, with the number."""

import pytest

from sws_jax.jobs import build, commandline, remarks
from sws_jax.training.durations import Durations

from support.runs import tiny


def of(ema=0.0, images=1257, **groups):
    config = tiny(**groups)
    config.ema = ema
    durations = Durations(images, config.global_batch_size)
    return remarks.of_run(config, durations, build.schedule(config, durations))


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            dict(steps=8, ema=0.99996),
            "over 8 steps still holds 99.97% of the weights that it started from",
        ),
        (
            dict(schedule=dict(warmup_epochs=0.01)),
            "warmup_epochs=0.01: less than half a step, so that there is no warm-up",
        ),
        (
            dict(schedule=dict(kind="cosine_per_epoch", warmup_epochs=0.1)),
            "rises to 0 and never to its peak of 0.001, in 10 steps",
        ),
        (
            dict(schedule=dict(minimum=0.1, rate_batch=512)),
            "schedule.minimum 0.1 is above the peak of the rate, 0.000125, which is "
            "0.001 scaled to the batch",
        ),
        (
            dict(schedule=dict(warmup_rate=0.01, warmup_epochs=0.1)),
            "schedule.warmup_rate 0.01 is above the peak of the rate, 0.001",
        ),
        (
            dict(evaluation=dict(milestones=(0.1, 2.0, 30.0))),
            "milestones 2, 30: after the end of the run",
        ),
        (
            dict(teacher=dict(path="t.safetensors")),
            "teacher.path=t.safetensors is not used: loss.kind is none",
        ),
        (
            dict(loss=dict(kind="soft", alpha=0.0), teacher=dict(path="t")),
            "loss.alpha is 0: the teacher is asked, and its answer weighs nothing",
        ),
        (
            dict(
                loss=dict(kind="soft"),
                teacher=dict(path="t"),
                augment=dict(label_smoothing=0.3),
            ),
            "label_smoothing=0.3 does nothing",
        ),
        (
            dict(init=dict(plan=(0, 1), head="keep")),
            "init.plan is not used: there is no init.learngene",
        ),
        (
            dict(data=dict(repeats=3)),
            "data.repeats=3: an epoch of 1,257 images has 419 different ones",
        ),
        (
            dict(replay=dict(every_steps=11)),
            "replay.every_steps=11 is not used: the run has 10 steps",
        ),
        (
            dict(images=40, steps=400),
            "global_batch_size 64 is more than the 40 images of an epoch",
        ),
    ],
)
def test_what_is_not_as_it_seems_is_said_with_its_number(changes, words):
    lines = of(**changes)
    assert [line for line in lines if words in line], lines
    assert all(line.startswith("run: ") for line in lines)


def test_what_the_rows_of_a_job_decide_is_said():
    argv = ["--config=configs/smoke.py", "--config.tune.model.depth=7"]
    config, _ = commandline.parse([*argv, "--config.scratch.schedule.total_epochs=77"])
    assert remarks.of_job(config, ["ancestor"]) == [
        "tune.model.depth=7 is not used: the depths are those of compare.depths",
        "scratch.schedule.total_epochs=77.0 is not used: nets from scratch train as "
        "long as the tuning, and compare.long_epochs",
    ]
    config = commandline.parse(argv[:1])[0]
    assert remarks.of_job(config, ["ancestor"]) == []
    assert remarks.of_job(config, ["aux"]) == [
        "no ancestor is trained, as no run needs it"
    ]
    config.teacher.path = "PATH"
    assert remarks.of_job(config, ["aux"]) == []
    argument = "learngene=g,dataset=digits,compare=untuned,seeds=5"
    argv = [f"--config=configs/transfer.py:{argument}", "--config.model.depth=7"]
    assert remarks.of_job(commandline.parse(argv)[0], []) == [
        "model.depth=7 is not used: the depths are those of compare.depths",
        "compare.seeds=5 is not used: nothing in an expansion is random",
    ]


def test_nothing_is_said_of_what_is_as_it_seems():
    assert of(0.5) == []
    assert of(0.99996, steps=0) == []
    assert of(replay=dict(every_steps=10)) == []
    marks = (0.5, 1.0)  # the second is the end, which is scored
    assert of(schedule=dict(total_epochs=1.0), evaluation=dict(milestones=marks)) == []
