"""How long one waits before anything trains: the first step, compilation.

Each start is a fresh process. What needs no step is timed in `benchmarks.answers`.

How to read it: "first step" is from the start of the process to the end of the first
update of the job in configs/aux_deit.py, on digits, data included: "cold" with no
compiled program on disk, and "warm" the same command once more. `hits` and `misses` are
of that cache (`sws_jax.runtime.compiled`). The other rows do not use it: `lower_s` is
tracing and `compile_s` is XLA's own time: a scanned network's stays level over its
depth, an unrolled one's grows with every block. The network alone is compiled, from
nothing but shapes; the row "+ DeiT" shows what the recipe's work on the device adds to
it, once for any network.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time

import jax

from benchmarks import measure, step
from benchmarks.measure import Row, Settings
from sws_jax import sharding
from sws_jax.errors import UserError
from sws_jax.runtime import compiled
from sws_jax.specs import Compute
from sws_jax.training import step as steps

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def run(settings: Settings) -> list[Row]:
    repeats = 1 if settings.quick else 3 if settings.accelerator else 2
    rows: list[Row] = []

    def add(row: Row) -> None:
        measure.say("startup", row)
        rows.append(row)

    for mode, row in _first_steps(repeats).items():
        add({"what": "first step, configs/aux_deit.py", "mode": mode, **row})

    for mode, recipe in _recipes(settings):
        add({"what": recipe.spec.name, "mode": mode, **_compile(recipe, settings)})
    return rows


def _recipes(settings: Settings) -> list[tuple[str, steps.Recipe]]:
    """What is compiled, and the name of its mode."""
    size = "nano" if settings.quick else "small"
    depths = (2,) if settings.quick else (6, 12, 24)
    stages = "1-2" if settings.quick else "3-3-4-3-3"
    aux = step.network(f"aux_vit_{size}_patch16_{stages}", settings)
    plain = [step.network(f"vit_{size}_patch16_L{depth}", settings) for depth in depths]
    middle = plain[len(plain) // 2]
    recipes = [
        (mode, steps.Recipe(spec, step.IMAGENET, compute))
        for mode, spec, compute in (
            ("scan", aux, Compute()),
            ("unrolled", aux, step.unrolled(aux)),
            *(("scan", spec, Compute()) for spec in plain),
            # One depth unrolled is enough to compare.
            ("unrolled", middle, step.unrolled(middle)),
        )
    ]
    if settings.quick:
        return recipes[:2]
    spec = middle.net.replace(drop_path=step.DROP_PATH)
    deit = steps.Recipe(spec, step.IMAGENET, augment=step.DEIT, ema=step.EMA)
    return [*recipes, ("scan + DeiT", deit)]


def _compile(recipe: steps.Recipe, settings: Settings) -> Row:
    mesh = sharding.make_mesh(jax.devices()[:1])
    arguments = step.abstract_arguments(recipe, settings.batch_size)
    lower, compile_ = [], []
    # Once on a CPU, where an unrolled network takes half a minute.
    for _ in range(3 if settings.accelerator else 1):
        # Without the memory of an earlier tracing.
        jax.clear_caches()
        steps.compiled_step.cache_clear()
        run_step = steps.compiled_step(recipe, mesh)
        before = time.perf_counter()
        lowered = run_step.lower(*arguments)
        lower.append(time.perf_counter() - before)
        compile_.append(measure.seconds(lowered.compile))
    return {
        "blocks": recipe.spec.depth,
        "lower_s": measure.figure(lower),
        "compile_s": measure.figure(compile_),
    }


def _first_steps(repeats: int) -> dict[str, Row]:
    """Starts with no compiled program on disk, each followed by one that has them."""
    waits: dict[str, dict[str, list[float]]] = {"cold": {}, "warm": {}}
    counts: dict[str, Row] = {}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as home:
            for mode, of_mode in waits.items():
                before = time.time()
                printed = _process(home, "-m", "benchmarks.first_step")
                outcome = json.loads(printed.splitlines()[-1])
                counts[mode] = {name: outcome.pop(name) for name in ("hits", "misses")}
                for name, at in outcome.items():
                    of_mode.setdefault(name, []).append(at - before)
    rows = {}
    for mode, of_mode in waits.items():
        done = of_mode.pop("stepped")
        after = {f"{n}_after_s": measure.figure(v) for n, v in of_mode.items()}
        rows[mode] = {"seconds": measure.figure(done), **after, **counts[mode]}
    return rows


def _process(home: str, *arguments: str) -> str:
    """What a process of its own prints, with a folder as the user's cache."""
    settings = {n: v for n, v in os.environ.items() if n not in compiled.VARIABLES}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**settings, "XDG_CACHE_HOME": home},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"python {' '.join(arguments)[:60]} ended badly: {last}")
    return done.stdout
