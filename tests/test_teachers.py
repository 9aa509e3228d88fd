"""A teacher of PyTorch, from its file through the commands to a distillation.

The smallest of its family: logits of the large ones, and of RegNets, are compared in
`test_levit` and `test_regnet`; RegNets teach in `test_train` and `test_traffic`.
"""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
from golden import make_levit
from PIL import Image

from sws_jax.data import pipeline
from sws_jax.jobs import build, commandline, initial, teacher
from sws_jax.jobs.rows import runs
from sws_jax.training import step

ROOT = pathlib.Path(__file__).parent.parent
CLASSES, STEPS, BATCH = 10, 16, 4


def run(*command):
    """One of the project's commands, as a user has it: without the tests' devices."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """JPEGs of many sizes, in ten classes that have a colour each."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for split, count in (("train", 9), ("test", 1)):
        for label, number in np.ndindex(CLASSES, count):
            colours = random.uniform(0, 255, (6, 8, 3)) / 2 + label * 12
            path = folder / split / f"class_{label}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            size = tuple(int(side) for side in random.integers(230, 330, 2))
            Image.fromarray(colours.astype(np.uint8)).resize(size).save(path)
    return folder


@pytest.mark.slow
def test_a_teacher_of_pytorch_drives_a_distillation(
    photographs, with_timm, tmp_path, capsys
):
    """Its logits on the run's own batches are PyTorch's, and the loss falls."""
    name = "levit_128s"
    timm = make_levit.import_timm()
    model = timm.create_model(name, num_classes=CLASSES).eval()
    make_levit.randomise(model, make_levit.draw_images(4, (224, 224)))
    state = {k: np.ascontiguousarray(v.numpy()) for k, v in model.state_dict().items()}
    source = tmp_path / f"{name}.safetensors"
    converted = tmp_path / "teacher.safetensors"
    safetensors.numpy.save_file(state, source)
    run("sws_jax", "convert", source, converted)
    chosen = f"variant=Ti/16,dataset={photographs},teacher={converted}"
    chosen += ",stages=1-2,depths=3,compare=untuned"
    fields = {
        "global_batch_size": BATCH,
        "schedule.rate_batch": 0,
        "schedule.total_epochs": STEPS * BATCH / 81,
        "schedule.warmup_epochs": 0.0,
        "data.val_fraction": 0.1,
        "augment.mix_group": 0,
        "teacher.min_accuracy": 0.0,
        "evaluation.batch_size": 10,
        "checkpoint.every_epochs": 0.0,
        "log_steps": 4,
    }
    workdir = tmp_path / "job"
    command = [
        f"--config={ROOT}/configs/aux_deit.py:{chosen}",
        f"--workdir={workdir}",
        *(f"--config.{key}={value}" for key, value in fields.items()),
    ]
    run("sws_jax.main", *command)
    lines = (workdir / "aux" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines if '"loss"' in line]
    assert json.loads(lines[-1])["step"] == STEPS
    assert losses[-1] < 0.8 * losses[0]

    config = runs(commandline.parse(command)[0])[0].config
    data = build.dataset(config)
    spec = initial.initial_network(config, data, str(workdir)).spec
    recipe = build.recipe(config, spec, data.normalization)
    predictor = teacher.load_teacher(str(converted))
    batches = pipeline.train_batches(
        data.train,
        build.transform(config),
        seed=config.seed,
        global_batch_size=BATCH,
        size=(224, 224),
    )
    prepare = jax.jit(step.make_batch, static_argnums=0)
    for number in range(3):
        raw = next(batches)
        raw.pop("skipped")
        images = prepare(recipe, jax.random.key(config.seed), number, raw).images
        ours = np.asarray(predictor.logits(images, recipe.normalization))
        exact = make_levit.logits(model, np.array(images))  # torch wants its own
        worst = np.abs(ours - exact).max() / exact.std()
        with capsys.disabled():
            print(
                f"\n{name}, batch {number}: {worst:.1e}, std {exact.std():.2f}", end=""
            )
        assert worst < 1e-4
    with capsys.disabled():
        print(f"\n{name}: losses {', '.join(f'{loss:.3f}' for loss in losses)}")
