"""Takes the first step of the Aux-Net in configs/smoke.py and prints when.

One line of JSON: the seconds since 1970 at which everything was imported, the data and
the network were there, and the step was done. `benchmarks.startup` starts it and knows
when it did.
"""

from __future__ import annotations

import json
import time

import jax
import numpy as np

from sws_jax import sharding
from sws_jax.data import pipeline
from sws_jax.jobs import build, commandline, initial
from sws_jax.training import step

imported = time.time()


def main() -> None:
    config = commandline.load("configs/smoke.py").unlock()
    # Its own teacher would have to be trained first.
    config.loss.kind = "none"
    config.teacher.path = ""
    data = build.dataset(config)
    network = initial.initial_network(config, data, "")
    ready = time.time()
    recipe = build.recipe(config, network.spec, data.normalization)
    mesh = sharding.make_mesh(jax.devices()[:1])
    shardings = step.state_shardings(recipe, mesh)
    new = jax.jit(
        lambda params: step.new_state(recipe, params), out_shardings=shardings
    )
    batch = next(
        pipeline.train_batches(
            data.train,
            build.transform(config),
            seed=0,
            global_batch_size=config.global_batch_size,
            size=data.image_shape[:2],
        )
    )
    batch.pop("skipped")
    state = new(sharding.put(network.params, shardings.params))
    key = jax.device_put(jax.random.key(0), sharding.replicated(mesh))
    raw = sharding.to_global(mesh, config.global_batch_size, batch)
    run_step = step.compiled_step(recipe, mesh)
    jax.block_until_ready(run_step(state, key, raw, np.float32(1e-3), None))
    times = {"imported": imported, "ready": ready, "stepped": time.time()}
    print(json.dumps(times))


if __name__ == "__main__":
    main()
