"""The files of tests/golden/old_files, which every later version has to open.

They were made once, by the version that this script was written for, and are never
remade: `tests/test_old_files.py` opens, resumes, reports and converts them. From the
root of a checkout::

    python -m tests.support.old_files make DIR

makes such files with the code of that checkout, on one CPU device, in about two
minutes, and::

    python -m tests.support.old_files compare DIR

makes them again, in a temporary directory, and prints for every file how many of its
arrays and other values differ, be it in one bit; times are left out. Two versions of
the code are compared by hand on one machine: `make` with the one, `compare` with the
other. Another processor rounds otherwise, and so differs from the files that are kept.
The exit code is 1 where something differs.

The contents of DIR::

    finished/       a job of configs/smoke.py in its work directory: ancestor, Aux-Net,
                    one descendant and two networks from scratch
    stopped/        the same job, in the middle of the Aux-Net's distillation; when it
                    goes on, it ends with the untuned descendant
    converted/      timm.safetensors, a random network under timm's names;
                    network.safetensors, converted from it; timm/, converted back
    expected.json   names and shapes in those files, and how the stopped job ends

Two things differ from what a run leaves. Its TensorBoard files are removed, since their
names contain that of the host, and no run reads them. And the file with which orbax
marks a checkpoint as complete contains the path of the checkpoint, of which only the
last part is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import filecmp
import io
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent.parent
KEPT = ROOT / "tests" / "golden" / "old_files"

DEPTH = 5  # of the descendants
# One run of every kind that a job has, small and short. The moving average is one more
# item of a checkpoint, and a run stops between two lines of the log.
_JOB = (
    f"--config={ROOT / 'configs' / 'smoke.py'}",
    f"--config.compare.depths=({DEPTH},)",
    "--config.model.width=16",
    "--config.ema=0.9",
    "--config.log_steps=5",
    "--config.ancestor.checkpoint.final=False",
    "--config.tune.schedule.total_epochs=1",
    "--config.tune.evaluation.milestones=(0.0,)",
    "--config.compare.long_epochs=2",
)
FINISHED = (*_JOB, "--config.compare.level=full")
STOPPED = (*_JOB, "--config.compare.level=untuned")
RUN, STEP = "aux", 13  # the run that was stopped, and after which step
CHECKPOINT = f"stopped/{RUN}/checkpoints/{STEP}"
# Files of the finished job.
WEIGHTS = {
    "learngene": "finished/learngene.safetensors",
    "descendant": f"finished/des-L{DEPTH:02d}/weights.safetensors",
}

TO_OURS = ("--heads", "2")
TO_TIMM = ("--to", "timm")

# Columns and fields that depend on the time, whatever the code; and the checksums in
# `meta` of a checkpoint that cover such a field.
TIMED = ("seconds", "images_per_second", "input_wait")
_OF_TIMED = ("clock", "digest")
# Those that depend on the machine and on the libraries.
_ELSEWHERE = ("hardware", "jax")
_COMMITTED = "commit_success.txt"  # orbax's mark in a checkpoint that is complete
_LARGEST = 2 * 2**20  # bytes, of all files together


def make(target: pathlib.Path) -> None:
    """Makes all files, in a directory that does not exist yet."""
    from sws_jax import __main__ as commands
    from sws_jax import main

    target.mkdir(parents=True)
    _run(main.main, *FINISHED, f"--workdir={target / 'finished'}")
    _stop(target / "stopped")
    with tempfile.TemporaryDirectory(prefix="sws_jax_") as folder:
        resumed = pathlib.Path(folder) / "resumed"
        shutil.copytree(target / "stopped", resumed)
        _run(main.main, *STOPPED, f"--workdir={resumed}")
        _check_resumed(resumed, target / "finished")
        expected: dict[str, Any] = {"resumed": _ending(resumed)}

    converted = target / "converted"
    converted.mkdir()
    theirs, ours = converted / "timm.safetensors", converted / "network.safetensors"
    _write_timm(theirs)
    _run(commands.main, "convert", theirs, ours, *TO_OURS)
    _run(commands.main, "convert", ours, converted / "timm", *TO_TIMM)

    expected["checkpoint"] = checkpoint_names(target / "stopped" / RUN, STEP)
    (score,) = scores(target / CHECKPOINT)
    expected["checkpoint"]["test_loss"] = float(score["loss"])
    for name, path in (*WEIGHTS.items(), ("network", "converted/network.safetensors")):
        expected[name] = names_of(target / path)
    text = json.dumps(expected, indent=1, sort_keys=True)
    (target / "expected.json").write_text(text + "\n")
    _forget_the_machine(target)


def _run(command, *arguments: object) -> None:
    if code := command([str(argument) for argument in arguments]):
        raise RuntimeError(f"{arguments} ended with {code}")


def _stop(workdir: pathlib.Path) -> None:
    """Leaves the job as a SIGTERM in the middle of a run does."""
    from sws_jax.jobs import commandline, execute

    config, _ = commandline.parse([*STOPPED])
    begun = workdir / RUN / "config.json"
    steps = 0

    def should_stop() -> bool:  # called after every step
        nonlocal steps
        steps += begun.exists()
        return steps == STEP

    try:
        execute.execute(config, str(workdir), should_stop=should_stop)
    except Exception as error:
        if not (workdir / RUN / "checkpoints" / str(STEP)).is_dir():
            raise
        print(error)
    if (workdir / RUN / "result.json").exists():
        raise RuntimeError(f"{RUN} was to be stopped, and has ended")


def _check_resumed(resumed: pathlib.Path, finished: pathlib.Path) -> None:
    """Raises unless the resumed run ends at the bits of the uninterrupted one."""
    one, other = (job / RUN / "learngene.safetensors" for job in (resumed, finished))
    if not filecmp.cmp(one, other, shallow=False):
        raise RuntimeError(f"going on, {RUN} ends with another learngene")


def _ending(workdir: pathlib.Path) -> dict[str, Any]:
    """What is expected of the stopped job once it was resumed to its end."""
    result = json.loads((workdir / RUN / "result.json").read_text())
    return {
        "rows": lasting(result_rows(workdir)),
        "lines": lasting(log_lines(workdir / RUN)),
        "steps": result["steps"],
        "timed_steps": timed_steps(workdir / RUN, result["steps"]),
        "test_loss": result["test"][-1]["loss"],
    }


def result_rows(workdir: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a job's results."""
    with open(workdir / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def log_lines(run: pathlib.Path) -> list[dict[str, float]]:
    """The lines of a run's log."""
    return [
        json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()
    ]


def lasting(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows or lines without what depends on the time and on the machine."""
    passing = (*TIMED, *_ELSEWHERE)
    return [{k: v for k, v in one.items() if k not in passing} for one in records]


def timed_steps(run: pathlib.Path, step: int) -> int:
    """How many steps before a checkpoint were timed: all but the first of a start."""
    path = run / "checkpoints" / str(step) / "clock" / "metadata"
    return json.loads(path.read_text())["steps"]


def checkpoint_names(run: pathlib.Path, step: int) -> dict[str, Any]:
    """The directories of a checkpoint, and types and shapes of the arrays in them."""
    folder = run / "checkpoints" / str(step)
    meta = json.loads((folder / "meta" / "metadata").read_text())
    return {
        "directories": sorted(p.name for p in folder.iterdir() if p.is_dir()),
        # In the text, a checksum follows type and shape.
        "arrays": {
            item: {name: text.split()[0] for name, text in arrays.items()}
            for item, arrays in meta["checksums"].items()
        },
    }


def scores(*weights: object) -> list[dict[str, str]]:
    """The table that `evaluate` prints: one row for each file or checkpoint."""
    from sws_jax import __main__ as commands

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        _run(commands.main, "evaluate", *weights)
    head, _, *body = (re.split(" {2,}", s) for s in printed.getvalue().splitlines())
    return [dict(zip(head, row, strict=True)) for row in body]


def names_of(path: pathlib.Path) -> dict[str, list[int]]:
    """Names and shapes of the arrays in a file of weights."""
    return {name: list(array.shape) for name, array in tensors(path).items()}


def tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    from safetensors import numpy

    return numpy.load_file(path)


def _write_timm(path: pathlib.Path) -> None:
    """A ViT of two blocks under timm's names, with a class token."""
    from safetensors import numpy

    width, patch, channels, classes = 16, 4, 3, 6
    block = {
        "norm1": (width,),
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "norm2": (width,),
        "mlp.fc1": (4 * width, width),
        "mlp.fc2": (width, 4 * width),
    }
    modules = {
        "patch_embed.proj": (width, channels, patch, patch),
        **{
            f"blocks.{n}.{name}": shape for n in (0, 1) for name, shape in block.items()
        },
        "norm": (width,),
        "head": (classes, width),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + 2 * 2, width),
    }
    for name, shape in modules.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    random = np.random.default_rng(0)
    flat = {
        name: random.normal(scale=0.25, size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    numpy.save_file(flat, path, {"format": "pt"})


def _forget_the_machine(target: pathlib.Path) -> None:
    """Removes the names of the host and of its directories from the files."""
    for path in target.rglob("events.out.tfevents.*"):
        path.unlink()
    for path in target.rglob(_COMMITTED):
        words = path.read_text().split()
        path.write_text(" ".join([*words[:-1], os.path.basename(words[-1])]))
    directory = str(target.absolute()).encode()
    leaks = [str(path) for path in files(target) if directory in path.read_bytes()]
    if leaks:
        raise RuntimeError(f"{' and '.join(leaks)} say where they were made")
    size = sum(path.stat().st_size for path in files(target))
    if size > _LARGEST:
        raise RuntimeError(f"the files have {size:,} bytes, of {_LARGEST:,} at most")
    print(f"{target}: {len(files(target))} files, {size:,} bytes")


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def compare(before: pathlib.Path, after: pathlib.Path) -> list[str]:
    """A line for each difference between two directories that `make` has written."""
    old, new = dict(_documents(before)), dict(_documents(after))
    differences = [f"{name}: is no longer made" for name in old.keys() - new.keys()]
    differences += [f"{name}: was not made before" for name in new.keys() - old.keys()]
    for name in sorted(old.keys() & new.keys()):
        lines = _differences(old[name], new[name])
        arrays = sum(isinstance(value, np.ndarray) for value in new[name].values())
        print(
            f"{name}: {arrays} arrays and {len(new[name]) - arrays} other values, "
            f"{len(lines)} differ"
        )
        differences += [f"{name}: {line}" for line in lines]
    return differences


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """A line for each value that differs between two documents, with its name."""
    lines = [f"{name} is missing" for name in old.keys() - new.keys()]
    lines += [f"{name} is new" for name in new.keys() - old.keys()]
    for name in sorted(old.keys() & new.keys()):
        was, now = old[name], new[name]
        if isinstance(was, np.ndarray) and isinstance(now, np.ndarray):
            if line := _array_difference(was, now):
                lines.append(f"{name} {line}")
        elif type(was) is not type(now) or was != now:
            lines.append(f"{name} was {_short(was)}, and is {_short(now)}")
    return lines


def _array_difference(was: np.ndarray, now: np.ndarray) -> str:
    """The difference in words; empty where all bits are the same."""
    if (was.dtype, was.shape) != (now.dtype, now.shape):
        kinds = [f"{array.dtype}{list(array.shape)}" for array in (was, now)]
        return f"was {kinds[0]}, and is {kinds[1]}"
    numbers = [
        np.frombuffer(array.tobytes(), np.uint8).reshape(-1, array.itemsize)
        for array in (was, now)
    ]
    changed = int((numbers[0] != numbers[1]).any(axis=1).sum())
    if not changed:
        return ""
    largest = np.abs(was.astype(np.float64) - now.astype(np.float64)).max()
    return f"differs in {changed} of {was.size} numbers, by up to {largest:.3g}"


def _short(value: Any) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)[:80]


def _documents(folder: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of every file, and the values in it by their own names.

    An item of a checkpoint is one document, of its arrays, since orbax gives the files
    in it random names. The marks and times that orbax writes beside it are left out.
    """
    items = [path.parent for path in folder.rglob("_METADATA")]
    for item in items:
        yield str(item.relative_to(folder)), restored(item)
    for path in files(folder):
        inside = any(item in path.parents for item in items)
        if not inside and path.name not in ("_CHECKPOINT_METADATA", _COMMITTED):
            yield str(path.relative_to(folder)), _document(path)


def restored(item: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of one item of a checkpoint, read by orbax alone."""
    import jax
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(item.absolute())
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def _document(path: pathlib.Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        import safetensors

        with safetensors.safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
        return {**tensors(path), **about, "bytes": path.read_bytes()}
    if path.suffix == ".csv":
        return _flat(result_rows(path.parent))
    if path.suffix == ".jsonl":
        return _flat(log_lines(path.parent))
    if path.suffix == ".json" or path.name in ("metadata", "metrics"):
        content = json.loads(path.read_text())
        if path.parent.name == "meta":
            content = {k: v for k, v in content.items() if k not in _OF_TIMED}
        return _flat(content)
    return {"bytes": path.read_bytes()}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """The values in a document of JSON by dotted names, without times."""
    if isinstance(value, dict):
        parts = [(key, part) for key, part in value.items() if key not in TIMED]
    elif isinstance(value, list):
        parts = list(enumerate(value))
    else:
        return {name: value}
    flat: dict[str, Any] = {}
    for key, part in parts:
        flat |= _flat(part, f"{name}.{key}" if name else str(key))
    return flat


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Files that later versions open.")
    parser.add_argument("what", choices=("make", "compare"))
    parser.add_argument("directory", type=pathlib.Path)
    args = parser.parse_args(arguments)
    os.environ.update(JAX_PLATFORMS="cpu", MPLBACKEND="Agg")
    from sws_jax import xla_flags

    xla_flags.add()
    if args.what == "make":
        make(args.directory)
        return 0
    with tempfile.TemporaryDirectory(prefix="sws_jax_") as folder:
        again = pathlib.Path(folder) / "again"
        make(again)
        differences = compare(args.directory, again)
    print(*differences, sep="\n")
    print(f"{len(differences)} differences")
    return int(bool(differences))


if __name__ == "__main__":
    sys.exit(main())
