"""Takes the first step of the job in configs/aux_deit.py on digits and prints when.

One line of JSON, the last: the seconds since 1970 at which everything was imported, the
job was checked, and the first step of its first run was done, and how many programs
were compiled and how many of them taken from the cache. `benchmarks.startup` starts it
and knows when it did.
"""

from __future__ import annotations

import collections
import contextlib
import json
import tempfile
import time

from sws_jax import xla_flags

xla_flags.add()

# ruff: noqa: E402  JAX reads the flags when it starts
import jax

from sws_jax.jobs import commandline, execute
from sws_jax.runtime import compiled
from sws_jax.training.loop import Preempted

_CACHE = "/jax/compilation_cache"
imported = time.time()


def main() -> None:
    events: collections.Counter[str] = collections.Counter()
    jax.monitoring.register_event_listener(lambda name, **_: events.update([name]))
    print(compiled.keep())
    config, _ = commandline.parse(["--config=configs/aux_deit.py"])
    asked: list[float] = []

    def should_stop() -> bool:
        asked.append(time.time())  # before the first run, then after each step
        return len(asked) > 1

    with tempfile.TemporaryDirectory() as workdir, contextlib.suppress(Preempted):
        execute.execute(config, workdir, should_stop=should_stop)
    hits = events[f"{_CACHE}/cache_hits"]
    outcome = {
        "imported": imported,
        "checked": asked[0],
        "stepped": asked[1],
        "hits": hits,
        "misses": events[f"{_CACHE}/compile_requests_use_cache"] - hits,
    }
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
