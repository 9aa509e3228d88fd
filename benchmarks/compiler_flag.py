"""What the flag of `sws_jax.xla_flags` costs, and what it changes in runs of tables.

    python -m benchmarks.compiler_flag [--rounds 15] [--only digits,32px,transfer,224px]

Two processes, one with the flag and one without, compile the step of every run of the
shipped jobs that has a table (on random images: the program is the same), take three
from the same weights and evaluate. Then they are timed in turns. 224 px are S/16 and
its Aux-Net, with a batch of 8.

How to read it: `step` and `evaluation` are time with the flag over time without, the
median over the rounds of the ratio of neighbours; `_least` compares the least times, of
which `_ms` is the one without. The differences are those of `benchmarks.meshes` between
the two, after three updates; `logits` is relative to their largest. Rounding is about
1e-7, and what Adam makes of it in weights.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

PARTS = ("digits", "32px", "transfer", "224px")
STEPS = 3
# The user's own value counts, and this one is what the compiler does without any.
WITHOUT = "--xla_cpu_experimental_ynn_fusion_type=+reduce"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main() -> int:
    from benchmarks import measure
    from sws_jax import xla_flags
    from sws_jax.storage import files

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compiler_flag",
        description="Time and numbers of training with the flag and without.",
    )
    parser.add_argument("--rounds", type=int, default=15, help="timings of each kind")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas")
    parser.add_argument("--out", default="results/benchmarks/compiler-flag.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    parts = args.only.split(",")
    if args.child:
        return _child(parts, args.child)
    if not xla_flags.needed():
        print(f"jaxlib {xla_flags.jaxlib()} is given no flag", file=sys.stderr)
        return 2
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    report: dict[str, Any] = {"machine": measure.machine()}
    report |= {"flag": xla_flags.needed(), "rows": []}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ends:
        sides = []
        for flag in (xla_flags.needed(), WITHOUT):
            side = _Side(flag, parts, os.path.join(folder, str(len(sides))))
            sides.append(side)
            ends.callback(side.end)
        while (row := _row(*sides, args.rounds)) is not None:
            measure.say("compiler_flag", row)
            report["rows"].append(row)
            files.write_json(args.out, report)
    print(measure.table(report["rows"]))
    return 0


class _Side:
    """A process with one of the flags, which does what it is asked."""

    def __init__(self, flag: str, parts: list[str], out: str):
        self.out = out
        command = [sys.executable, "-m", "benchmarks.compiler_flag"]
        self._process = subprocess.Popen(
            [*command, "--only", ",".join(parts), "--child", out],
            cwd=ROOT,
            env={**os.environ, "XLA_FLAGS": flag},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self):
        """What it says next: a run that is ready, a time, or None at the end."""
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        return None

    def tell(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()

    def seconds(self, what: str) -> float:
        """The seconds that one step or one evaluation takes."""
        self.tell(what)
        return self.answer()["seconds"]

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def _row(mine: _Side, other: _Side, rounds: int) -> dict | None:
    """The next run's ratios and differences; None where there is no more."""
    import numpy as np

    from benchmarks import measure, meshes

    ready, also = mine.answer(), other.answer()
    if ready is None or also is None:
        return None
    assert ready == also
    row = dict(ready)
    for what in ("step", "evaluation"):
        sides = (mine, other)
        pairs = [[side.seconds(what) for side in sides] for _ in range(rounds + 1)]
        with_it, without = zip(*pairs[1:], strict=True)  # the first ones warm up
        ratios = [a / b for a, b in zip(with_it, without, strict=True)]
        row[what] = measure.figure(ratios)
        # Least beside least: where other work disturbs, it never speeds anything up.
        row[f"{what}_least"] = measure.short(min(with_it) / min(without))
        row[f"{what}_ms"] = measure.short(1e3 * min(without))
    runs = []
    for side in (other, mine):
        with np.load(f"{side.out}.npz") as arrays:
            runs.append(dict(arrays))
    losses = [one.pop("losses") for one in runs]
    logits = [one.pop("logits") for one in runs]
    largest = float(np.abs(logits[1] - logits[0]).max()) / float(
        np.abs(logits[0]).max()
    )
    values = *meshes.differences(*zip(losses, runs, strict=True)), largest
    heads = ("loss", "weights_99", "weights_largest", "keys_biases", "logits")
    row |= {h: float(f"{v:.1e}") for h, v in zip(heads, values, strict=True)}
    for side in (mine, other):
        side.tell("next")
    return row


def _child(parts: list[str], out: str) -> int:
    """Makes one run after the other ready, and takes times of it as it is asked."""
    import numpy as np

    from benchmarks import measure

    for part in parts:
        for name, job in _jobs(part):
            calls, losses, params, logits = _made(*job)
            np.savez(f"{out}.npz", losses=losses, logits=logits, **params)
            print(json.dumps({"part": part, "run": name}), flush=True)
            while (what := sys.stdin.readline().strip()) != "next":
                seconds = measure.seconds(calls[what])
                print(json.dumps({"seconds": seconds}), flush=True)
    return 0


def _jobs(part: str):
    """(name, (recipe, teacher or None, images of a step, of an evaluation)) of runs."""
    from benchmarks import step as networks_of
    from sws_jax.jobs import build, commandline, model_fields
    from sws_jax.jobs.rows import runs
    from sws_jax.models.networks import Network, Predictor
    from sws_jax.pixels import default_normalization
    from sws_jax.training import step as steps
    from sws_jax.training.roles import ANCESTOR

    if part == "224px":
        for name in ("aux_vit_small_patch16_3-3-4-3-3", "vit_small_patch16_L12"):
            spec = networks_of.specs.named(name, drop_path=networks_of.DROP_PATH)
            more = dict(augment=networks_of.DEIT, ema=networks_of.EMA)
            yield name, (steps.Recipe(spec, networks_of.IMAGENET, **more), None, 8, 8)
        return
    config, shape = {
        "digits": ("configs/aux_deit.py", ((8, 8), 1, 10)),
        "32px": ("configs/aux_deit.py:variant=32px,dataset=x.npz", ((32, 32), 3, 45)),
        "transfer": (
            "configs/transfer.py:variant=32px,dataset=x.npz,depths=6,compare=full,"
            "learngene=results/natural/learngene.safetensors",
            ((32, 32), 3, 10),
        ),
    }[part]
    about = dict(zip(("image_size", "channels", "num_classes"), shape, strict=True))
    pixels = default_normalization(shape[1])
    rows = {row.name: row for row in runs(commandline.load(config))}
    seen = set()
    for name, row in rows.items():
        if not row.config.schedule.total_epochs:
            continue
        spec = model_fields.network_spec(row.config, about)
        recipe = build.recipe(row.config, spec, pixels)
        if recipe in seen:  # it differs in its seed or its epochs
            continue
        seen.add(recipe)
        teacher = None
        if recipe.loss.needs_teacher:
            its = model_fields.network_spec(rows[ANCESTOR].config, about)
            teacher = Predictor(Network(its, _weights(its)), pixels)
        sizes = row.config.global_batch_size, row.config.evaluation.batch_size
        yield name, (recipe, teacher, *sizes)


def _weights(spec):
    """Parameters of the size that trained ones have, from numpy."""
    import numpy as np

    from sws_jax import trees
    from sws_jax.models import networks

    random = np.random.default_rng(0)

    def draw(name, leaf):
        values = 0.1 * random.standard_normal(leaf.shape, np.float32)
        return values + np.float32(name.endswith("scale"))

    return trees.map_with_name(draw, networks.abstract_params(spec))


def _made(recipe, teacher, size: int, count: int):
    """What is timed, losses, final parameters by name, and logits of an evaluation."""
    import jax
    import numpy as np

    from sws_jax import pixels, sharding, trees
    from sws_jax.models.networks import Network, Predictor
    from sws_jax.training import evaluation, step

    mesh = sharding.make_mesh(jax.devices()[:1])
    shardings = step.state_shardings(recipe, mesh)
    new = jax.jit(
        lambda params: step.new_state(recipe, params), out_shardings=shardings
    )
    state = new(sharding.put(_weights(recipe.spec), shardings.params))
    run_step = step.compiled_step(recipe, mesh)
    random = np.random.default_rng(1)
    spec = recipe.spec
    shape = (STEPS, size, *spec.image_size, spec.channels)
    images = random.integers(0, 256, shape, np.uint8)
    labels = random.integers(0, spec.num_classes, shape[:2], np.int32)
    key = jax.random.key(0)

    def update(state, number):
        raw = {"image": images[number], "label": labels[number]}
        raw = sharding.to_global(mesh, size, raw)
        return run_step(state, key, raw, np.float32(1e-3), teacher)

    losses = []
    for number in range(STEPS):
        state, numbers = update(state, number)
        losses.append(float(numbers["loss"]))
    params = trees.to_host(state.params)
    predictor = Predictor(Network(recipe.spec, params), recipe.normalization)
    batch = {
        "image": random.integers(0, 256, (count, *shape[2:]), np.uint8),
        "label": random.integers(0, spec.num_classes, count, np.int32),
        "weight": np.ones(count, np.float32),
    }
    logits_of = jax.jit(lambda p, x: p.logits(x, recipe.normalization))
    seen = pixels.normalize(batch["image"], recipe.normalization)
    logits = np.asarray(logits_of(predictor, seen))
    sums_of = evaluation.compiled(recipe.normalization, mesh)
    losses.append(float(sums_of(predictor, batch)["loss"]))

    def one_step():
        nonlocal state
        state, numbers = update(state, 0)
        jax.block_until_ready((state, numbers))

    def one_evaluation():
        jax.block_until_ready(sums_of(predictor, batch))

    calls = {"step": one_step, "evaluation": one_evaluation}
    return calls, losses, trees.flatten(params), logits


if __name__ == "__main__":
    sys.exit(main())
