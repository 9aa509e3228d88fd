"""What the programs share: timing in turns, the machine, the table."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tabulate

Row = dict[str, Any]
MIB = 2**20
# Of the packages that decide a figure; those that are missing are left out.
PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "grain", "numpy", "pillow", "array_record",
    "tensorflow-datasets", "opencv-python-headless", "torch", "timm", "transformers",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run measures.

    Attributes:
      sizes: of the networks, names of `sws_jax.specs.SIZES`.
      batch_size: images of a training step.
      quick: the smallest networks and the shortest windows: do the programs work?
      accelerator: the device is more than a CPU.
    """

    sizes: tuple[str, ...]
    batch_size: int
    quick: bool = False
    accelerator: bool = False

    @property
    def repeats(self) -> int:
        """Timed calls of a training step."""
        return 20 if self.accelerator else 2 if self.quick else 3


def seconds(call: Callable[[], Any]) -> float:
    """Wall time of a call, which waits for what it starts."""
    before = time.perf_counter()
    call()
    return time.perf_counter() - before


def in_turns(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict:
    """Seconds of each call, [repeats], the calls taking turns.

    A machine drifts (heat, neighbours): what is compared is timed side by side.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return times


def figure(values: Sequence[float]) -> dict[str, float]:
    """Repeated measurements of one quantity, in the unit that its name ends with."""
    return {
        "median": short(statistics.median(values)),
        "min": short(min(values)),
        "max": short(max(values)),
        "repeats": len(values),
    }


def short(value: float) -> float:
    """Four significant digits; a timing has no more."""
    return float(f"{value:.4g}")


def measured(program: str, about: Row, figures: Callable[[], Row]) -> Row:
    """A row with its figures, or with the reason why memory did not do for them."""
    try:
        row = about | figures()
    except (MemoryError, RuntimeError) as error:
        reason = out_of_memory(error)
        if not reason:
            raise
        row = about | {"note": reason}
    say(program, row)
    return row


def out_of_memory(error: BaseException) -> str:
    """Why a row has no figures, or nothing where the error is another."""
    text = str(error)
    if isinstance(error, MemoryError):
        return f"out of memory: {text}" if text else "out of memory"
    if "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower():
        return "out of memory: " + text.splitlines()[0][:160]
    return ""


def say(program: str, row: Row) -> None:
    """One line for a row as soon as it is known."""
    cells = ", ".join(f"{name} {_cell(value)}" for name, value in row.items())
    print(f"{program}: {cells}", file=sys.stderr, flush=True)


def table(rows: Sequence[Row], hidden: Sequence[str] = ()) -> str:
    """Rows side by side, columns in the order in which they first appear.

    A figure is shown as its median, and its least value in parentheses.

    Args:
      rows: as a program returns them.
      hidden: columns to leave out.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    names = [name for name in names if name not in hidden]
    names.sort(key=lambda name: name == "note")  # reasons come last
    body = [[_cell(row.get(name, "")) for name in names] for row in rows]
    head = [name.replace("_", " ") for name in names]
    return tabulate.tabulate(body, head, disable_numparse=True)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return f"{_cell(value['median'])} ({_cell(value['min'])})"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def available_bytes() -> int | None:
    """Host memory that can be had without swapping; None where nobody says."""
    return _meminfo("MemAvailable")


def machine() -> dict[str, Any]:
    """Where and with what a run was made."""
    import jax

    from sws_jax.runtime import host

    device = jax.devices()[0]
    total = _meminfo("MemTotal")
    return {
        "date_utc": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cpu_cores": host.cores(),
        "memory_gib": round(total / 2**30, 1) if total else None,
        # Other work on the machine slows every figure.
        "load_average_1min": round(os.getloadavg()[0], 2),
        "device": device.device_kind,
        "platform": device.platform,
        "device_count": jax.device_count(),
        "environment": {
            name: os.environ[name]
            for name in ("XLA_FLAGS", "JAX_PLATFORMS")
            if os.environ.get(name)
        },
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _cpu() -> str:
    match = re.search(r"^model name\s*: (.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    return match[1] if match else platform.processor()


def _meminfo(name: str) -> int | None:
    match = re.search(rf"^{name}: +(\d+) kB$", _text("/proc/meminfo"), re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def _text(path: str) -> str:
    """The text of a file that only some systems have; empty without it."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
