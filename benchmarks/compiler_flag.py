"""What the flag of `sws_jax.xla_flags` costs, and what it changes in runs of tables.

    python -m benchmarks.compiler_flag [--rounds 4] [--only digits,32px,transfer,224px]

Processes with the flag and without it take turns: each compiles the steps of every run
of the shipped jobs that has a table (random images: the program is the same), takes
three from the same weights, evaluates, and times both. 224 px are S/16 and its Aux-Net.

How to read it: `step` and `evaluation` are time with the flag over time without, the
median of the rounds; with `_cpu` the time of all cores, which other work on the machine
disturbs less. The differences are those of `benchmarks.meshes`
between the two, after three updates; `logits` is relative to their largest. Rounding is
about 1e-7, and what Adam makes of it in weights.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

PARTS = ("digits", "32px", "transfer", "224px")
STEPS = 3
# The name's last value counts, and this one is what the compiler does without any.
WITHOUT = "--xla_cpu_experimental_ynn_fusion_type=+reduce"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main() -> int:
    from benchmarks import measure
    from sws_jax import files, xla_flags

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compiler_flag",
        description="Time and numbers of training with the flag and without.",
    )
    parser.add_argument("--rounds", type=int, default=4, help="processes of each kind")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas")
    parser.add_argument("--out", default="results/benchmarks/compiler-flag.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return _child(args.only.split(","), args.child)
    if not xla_flags.needed():
        print(f"jaxlib {xla_flags.jaxlib()} is given no flag", file=sys.stderr)
        return 2
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    report = {"machine": measure.machine(), "flag": xla_flags.needed(), "rows": []}
    for part in args.only.split(","):
        report["rows"] += _compared(part, args.rounds)
        files.write_json(args.out, report)
    print(measure.table(report["rows"]))
    return 0


def _compared(part: str, rounds: int) -> list[dict]:
    """Rows of a part: each run's ratios and differences."""
    import numpy as np

    from benchmarks import measure, meshes
    from sws_jax import xla_flags

    times: dict[str, list[dict]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as folder:
        flags = {"with": xla_flags.needed(), "without": WITHOUT}
        for number in range(rounds):
            for kind in sorted(flags, reverse=bool(number % 2)):
                environment = {
                    **os.environ,
                    "XLA_FLAGS": flags[kind],
                    "JAX_COMPILATION_CACHE_DIR": os.path.join(folder, "compiled"),
                }
                command = [sys.executable, "-m", "benchmarks.compiler_flag"]
                command += ["--only", part, "--child", os.path.join(folder, kind)]
                done = subprocess.run(
                    command, cwd=ROOT, env=environment, stdout=subprocess.PIPE
                )
                done.check_returncode()
                times[kind].append(json.loads(done.stdout.splitlines()[-1]))
        rows = []
        for name in times["with"][0]:
            row: dict = {"part": part, "run": name}
            for what in ("step", "step_cpu", "evaluation", "evaluation_cpu"):
                pairs = [
                    (a[name][what], b[name][what])
                    for a, b in zip(times["with"], times["without"], strict=True)
                ]
                row[what] = measure.figure([a / b for a, b in pairs])
                row[f"{what}_ms"] = measure.short(
                    1e3 * statistics.median(b for _, b in pairs)
                )
            found = []
            for kind in ("without", "with"):
                with np.load(os.path.join(folder, f"{kind}-{name}.npz")) as arrays:
                    found.append(dict(arrays))
            losses = [one.pop("losses") for one in found]
            logits = [one.pop("logits") for one in found]
            both = tuple(zip(losses, found, strict=True))
            largest = float(np.abs(logits[1] - logits[0]).max())
            values = (
                *meshes._differences(*both),
                largest / float(np.abs(logits[0]).max()),
            )
            heads = ("loss", "weights_99", "weights_largest", "keys_biases", "logits")
            row |= {h: float(f"{v:.1e}") for h, v in zip(heads, values, strict=True)}
            measure.say("compiler_flag", row)
            rows.append(row)
    return rows


def _child(parts, out: str) -> int:
    """Prints the times of all runs, and writes what each has computed."""
    import numpy as np

    times = {}
    for part in parts:
        for name, job in _jobs(part):
            times[name], losses, params, logits = _measured(*job)
            np.savez(f"{out}-{name}.npz", losses=losses, logits=logits, **params)
    print(json.dumps(times))
    return 0


def _jobs(part: str):
    """(name, (recipe, teacher or None, images of a step, of an evaluation)) of runs."""
    from benchmarks import step as networks_of
    from sws_jax import chain, configs, setup, start
    from sws_jax import step as steps
    from sws_jax.data.base import default_normalization
    from sws_jax.networks import Network, Predictor

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
    rows = {row.name: row for row in chain.runs(configs.load(config))}
    seen = set()
    for name, row in rows.items():
        if not row.config.schedule.total_epochs:
            continue
        spec = start.network_spec(row.config, about)
        recipe = setup.recipe(row.config, spec, pixels)
        if recipe in seen:  # it differs in its seed or its epochs
            continue
        seen.add(recipe)
        teacher = None
        if recipe.loss.needs_teacher:
            its = start.network_spec(rows[chain.ANCESTOR].config, about)
            teacher = Predictor(Network(its, _weights(its)), pixels)
        sizes = row.config.global_batch_size, row.config.evaluation.batch_size
        yield name, (recipe, teacher, *sizes)


def _weights(spec):
    """Parameters of the size that trained ones have, from numpy."""
    import numpy as np

    from sws_jax import networks, trees

    random = np.random.default_rng(0)

    def draw(name, leaf):
        values = 0.1 * random.standard_normal(leaf.shape, np.float32)
        return values + np.float32(name.endswith("scale"))

    return trees.map_with_name(draw, networks.abstract_params(spec))


def _measured(recipe, teacher, size: int, count: int):
    """Seconds, losses, final parameters by name, and logits of an evaluation."""
    import jax
    import numpy as np

    from sws_jax import evaluation, sharding, step, trees
    from sws_jax.data import augment
    from sws_jax.networks import Network, Predictor

    mesh = sharding.make_mesh(jax.devices()[:1])
    places = step.state_shardings(recipe, mesh)
    new = jax.jit(lambda params: step.new_state(recipe, params), out_shardings=places)
    state = new(sharding.put(_weights(recipe.spec), places.params))
    run_step = step.compiled_step(recipe, mesh)
    random = np.random.default_rng(1)
    net = recipe.net
    shape = (STEPS, size, *net.image_size, net.channels)
    images = random.integers(0, 256, shape, np.uint8)
    labels = random.integers(0, net.num_classes, shape[:2], np.int32)
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
        "label": random.integers(0, net.num_classes, count, np.int32),
        "weight": np.ones(count, np.float32),
    }
    logits_of = jax.jit(lambda p, x: p.logits(x, recipe.normalization))
    seen = augment.normalize(batch["image"], recipe.normalization)
    logits = np.asarray(logits_of(predictor, seen))
    sums_of = evaluation._compiled(recipe.normalization, mesh)
    losses.append(float(sums_of(predictor, batch)["loss"]))

    def steps(times):
        nonlocal state
        for number in range(times):
            state, numbers = update(state, number % STEPS)
        jax.block_until_ready((state, numbers))

    def evaluations(times):
        jax.block_until_ready([sums_of(predictor, batch) for _ in range(times)])

    seconds = {}
    for what, call in (("step", steps), ("evaluation", evaluations)):
        seconds[what], seconds[f"{what}_cpu"] = _each(call)
    return seconds, losses, trees.flatten(params), logits


def _each(call) -> tuple[float, float]:
    """Seconds of one of many, and those of all cores; the least of three times."""
    from benchmarks import measure

    call(1)
    times = max(1, min(50, int(0.5 / measure.seconds(lambda: call(1)))))
    found = []
    for _ in range(3):
        before = time.process_time()
        wall = measure.seconds(lambda: call(times))
        found.append((wall / times, (time.process_time() - before) / times))
    walls, cpus = zip(*found, strict=True)
    return min(walls), min(cpus)


if __name__ == "__main__":
    sys.exit(main())
