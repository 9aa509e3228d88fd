"""How many runs of a job are under way at once on this machine, and why so many.

Each is in a process of its own (`sws_jax.runtime.crew`), which takes from the work
directory what no other has claimed.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import jax

from sws_jax.errors import UserError
from sws_jax.jobs import preflight
from sws_jax.jobs.commandline import PARALLEL
from sws_jax.jobs.rows import Run, at_once, layers
from sws_jax.runtime import host, processes, words
from sws_jax.storage import paths

# Measured on digits: 1.1 GiB after 9 of the 20 runs of configs/aux_deit.py, one by one.
_PROCESS_BYTES = int(1.5 * 2**30)
_FLOAT = 4
_COPIES = 5  # of the parameters: gradients, two moments, average
_MARGIN = 1.5  # of what is counted: see `sws_jax.estimate.sizing.margin`
_SIDE = 224  # pixels, where the config leaves them to its data


@dataclasses.dataclass(frozen=True)
class Choice:
    """How many runs are under way at once.

    Attributes:
      count: of runs, each in a process.
      why: not more, and not fewer.
    """

    count: int
    why: str

    def __str__(self) -> str:
        number = words.many(self.count, "run")
        return f"{number} at once ({PARALLEL}={self.count}): {self.why}"


def choose(wish: int | None, rows: Sequence[Run], workdir: str) -> Choice:
    """How many runs of a job are to be under way at once.

    Args:
      wish: as many, or as many as can begin; None leaves it to this machine.
      rows: of the job.
      workdir: of the job, in which runs that are done are left out.

    Raises:
      UserError: several are wished for where there can be but one.
    """
    why_one = _why_one()
    if wish is not None and wish > 1 and why_one:
        raise UserError(f"{PARALLEL}={wish} cannot be: {why_one}; leave {PARALLEL} out")
    if why_one:
        return Choice(1, why_one)
    if wish is None and paths.is_remote(workdir):
        return Choice(1, "the work directory is in a bucket")
    left = [run for run in rows if not preflight.is_done(run, workdir)]
    ready = max(at_once(left), 1)
    if ready == 1:
        return Choice(1, "no two of those that are left can begin at once")
    if wish is not None:
        return Choice(wish, "as asked for") if wish <= ready else _all_ready(ready)
    cores, available = host.cores(), host.available()
    most = min(cores, ready)
    if available is not None:
        each = max(map(bytes_of, left))
        fitting = max(available // each, 1)
        if fitting < most:
            return Choice(
                fitting,
                f"each may take {words.size(each)} of memory, and "
                f"{words.size(available)} are free",
            )
    return (
        Choice(cores, f"this machine has {words.many(cores, 'core')}")
        if (cores <= ready)
        else _all_ready(ready)
    )


def _all_ready(ready: int) -> Choice:
    return Choice(ready, "more cannot begin at once")


def _why_one() -> str:
    """Why there cannot be two runs at once here; empty where there can."""
    if not processes.is_alone():
        return "the processes of this job are at one run together"
    platform = jax.devices()[0].platform
    if platform != "cpu":
        return f"a {platform.upper()} is for one process"
    return ""


def bytes_of(run: Run) -> int:
    """Memory that a process may take for a run, on a CPU.

    By its config alone, so that nothing is traced before the first step: for ViTs of
    12 to 384 wide it gave 0.96 to 1.07 of `sws_jax.estimate.flops.activation_bytes`.

    Args:
      run: of a job.
    """
    config = run.config
    model, side = config.model, config.data.image_size or _SIDE
    if config.data.source == "digits" and not config.data.image_size:
        side = 8
    depth = layers(config)
    width, tokens = model.width, (side // max(model.patch_size, 1)) ** 2 + 1
    kept, every = (1, depth) if config.compute.remat else (depth, 0)
    image = tokens * (kept * (24 * width + 3 * model.heads * tokens) + every * width)
    image = _FLOAT * (image + 6 * side * side)
    images = -(-config.global_batch_size // config.accum_steps)
    parameters = _FLOAT * 12 * depth * width * width
    counted = image * images + _COPIES * parameters
    return _PROCESS_BYTES + int(_MARGIN * counted) + _of_data(config.data)


def _of_data(data) -> int:
    """Memory that a process may take for its images."""
    if data.source == "digits":
        return 0
    if data.source.endswith(".npz"):
        return os.path.getsize(data.source) if os.path.isfile(data.source) else 0
    return int(data.memory_gib * 2**30)
