"""Runs the benchmarks: one table each, and one JSON file for all of them."""

from __future__ import annotations

from sws_jax.runtime import entry

if __name__ == "__main__":
    entry.begin()

# ruff: noqa: E402  what is imported below takes a while
import argparse
import importlib
import os
import re
import sys
import time
from collections.abc import Sequence

KINDS = {
    "step": "a training step: scan, remat, unrolled",
    "peers": "a training step beside PyTorch's",
    "growth": "a training step against depth and batch, with two pictures",
    "estimates": "the dry run's time of a step beside the step",
    "replay": "training steps of which some are computed twice",
    "expansion": "expanding a learngene beside a copy",
    "checksums": "what a checkpoint costs the thread that trains",
    "saves": "how long a save holds up training",
    "input": "images read per second",
    "answers": "help, mistakes and imports, beside an empty process",
    "startup": "the first step, compilation",
}
# `input` names a function of Python, and modules have names of their own.
MODULES = {"input": "inputs"}

FAST_COMPILATION = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 where the request cannot be met."""
    from sws_jax.errors import UserError

    parser = _parser()
    args = parser.parse_args(argv)
    try:
        _run(args)
    except UserError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    kinds = "\n".join(f"  {name:<10}{text}" for name, text in KINDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"{__doc__}\n\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", help="some of the above, with commas between")
    parser.add_argument(
        "--sizes",
        help="of networks: tiny,small,base on an accelerator, tiny,small on a CPU",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        help="images of a training step: 128 on an accelerator, 8 on a CPU",
    )
    parser.add_argument(
        "--quick", action="store_true", help="toy networks: does everything run?"
    )
    parser.add_argument(
        "--out", help="the JSON file; default results/benchmarks/DEVICE.json"
    )
    return parser


def _run(args: argparse.Namespace) -> None:
    # JAX starts below; a request that cannot be met need not wait for it.
    from sws_jax import xla_flags
    from sws_jax.errors import UserError
    from sws_jax.specs import SIZES

    only = _chosen("--only", args.only, KINDS)
    sizes = _chosen("--sizes", args.sizes, SIZES)
    if args.batch_size is not None and args.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, and is {args.batch_size}")
    if args.out and os.path.isdir(args.out):
        raise UserError(f"--out {args.out} is a folder: name a file in it")
    # PyTorch shares the accelerator in `peers`, and JAX would take most of it at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if args.quick:  # it compiles much, and its figures mean nothing
        # Of a flag that is there twice, the later one counts: the user's.
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = xla_flags.joined(FAST_COMPILATION, flags)
    import jax

    from benchmarks import measure
    from sws_jax.storage import documents, files

    device = jax.devices()[0]
    accelerator = device.platform != "cpu"
    default: tuple[str, ...] = ("tiny", "small", "base")
    if args.quick:
        default = ("nano",)
    elif not accelerator:
        default = ("tiny", "small")
    settings = measure.Settings(
        sizes=sizes or default,
        batch_size=args.batch_size or (128 if accelerator and not args.quick else 8),
        quick=args.quick,
        accelerator=accelerator,
    )
    kinds = only or tuple(KINDS)
    out = args.out or _default_out(device.device_kind, only, args.quick)
    report: dict = {"machine": measure.machine(), "settings": vars(settings)}
    report["seconds"] = {}
    for kind in kinds:
        program = importlib.import_module(f"benchmarks.{MODULES.get(kind, kind)}")
        before = time.perf_counter()
        report[kind] = program.run(settings)
        report["seconds"][kind] = round(time.perf_counter() - before, 1)
        table = measure.table(report[kind], getattr(program, "HIDDEN", ()))
        print(f"\n{kind}: {KINDS[kind]}\n\n{table}\n", flush=True)
        files.write_json(out, documents.plain(report))  # a later kind may fail
        if hasattr(program, "draw"):
            program.draw(report[kind], os.path.splitext(out)[0])
    print(f"written to {out}; figures are medians (least)")


def _chosen(flag: str, text: str | None, known) -> tuple[str, ...]:
    """Names with commas between them, each once."""
    from sws_jax.errors import UserError

    if text is None:
        return ()
    names = tuple(dict.fromkeys(filter(None, text.split(","))))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise UserError(
            f"{flag} {text!r} is not made of {', '.join(known)}, with commas between"
        )
    return names


def _default_out(device: str, only: tuple[str, ...], quick: bool) -> str:
    """A file of its own for a part of the whole, which would else replace it."""
    name = "-".join([re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-"), *only])
    return os.path.join("results", "benchmarks", f"{name}{'-quick' * quick}.json")


if __name__ == "__main__":
    sys.exit(main())
