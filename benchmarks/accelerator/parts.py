"""What is checked and measured, the most important first."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Part:
    """A process that returns rows of one table.

    Attributes:
      name: of the part.
      text: what it tells.
      module: of this package, whose function `cases` lists the rows.
      least, most: seconds; with fewer left it is not begun, and with more taken it is
        ended. Both were set without an accelerator at hand.
      decides: whether the check fails where the part crashes or finds something wrong.
      flags: of XLA, beside those that are set.
    """

    name: str
    text: str
    module: str
    least: float = 30.0
    most: float = 480.0
    decides: bool = True
    flags: str = ""


def _flags(name: str, text: str, flags: str) -> Part:
    # A flag that a version of XLA does not know ends the process.
    return Part(name, text, "flags", 40.0, decides=False, flags=flags)


PARTS = (
    Part("device", "the rates that shares are of", "device", 15.0, 60.0),
    Part("curves", "losses beside those of a CPU", "curves", 30.0, 90.0),
    Part("attention", "its backends beside XLA's", "attention", 20.0, 75.0),
    Part("steps", "training steps, as shares of the matmul rate", "steps", 40.0, 150.0),
    Part("peers", "beside timm, compiled", "peers", 60.0, 130.0),
    Part("teachers", "what a teacher adds to a step", "teachers", 45.0, 120.0),
    Part("resident", "a 32 px net, from device memory", "resident", 25.0, 60.0),
    Part("profile", "a step by operation", "profile", 30.0, 60.0, decides=False),
    Part("ways", "unrolled, rematerialised", "ways", 40.0, decides=False),
    _flags(
        "latency-hiding",
        "steps with XLA's latency-hiding scheduler",
        "--xla_gpu_enable_latency_hiding_scheduler=true",
    ),
    _flags(
        "no-graphs",
        "steps without CUDA graphs",
        "--xla_gpu_enable_command_buffer=",
    ),
)
