"""``prepare``: data made ready once, for fast and exact reading in every run."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import unicodedata
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

from sws_jax import commands

if TYPE_CHECKING:
    from sws_jax.prepare import sets
    from sws_jax.prepare.parts import Source

HELP = "make images ready once: array_record files, or resized arrays"
EXAMPLE = "python -m sws_jax prepare FOLDER data --size 224"

VERSION = "1.0.0"  # of sets made here; TFDS numbers its own
_REMEDY = "take another OUT"

# Of a set of array_record files, TFDS takes what could be the name of a class.
_RECORDS, _ARRAYS = r"[A-Za-z][A-Za-z0-9_]*", r"\w[\w-]*"


class _Terminated(KeyboardInterrupt):
    """SIGTERM was received: the command ends as at Ctrl-C."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="a folder of images (train/CLASS/, and val or test), of tars (train.tar, "
        "...; ImageNet's own), a prepared set, or tfds:NAME[/CONFIG][:VERSION], which "
        "needs TensorFlow",
    )
    parser.add_argument("out", nargs="?", metavar="OUT", help="the set is OUT/NAME")
    parser.add_argument("--name", help="default: the source's")
    parser.add_argument(
        "--size",
        type=commands.whole,
        metavar="N",
        help="write N x N pixels, uint8, mapped into memory when they are read",
    )
    parser.add_argument(
        "--workers", type=commands.whole, help="processes (default: all cores)"
    )
    parser.add_argument(
        "--unreadable",
        choices=("stop", "skip"),
        default="stop",
        help="skip leaves out images that cannot be read (default: stop)",
    )
    parser.add_argument(
        "--partial", action="store_true", help="take a well-known set that is not whole"
    )
    parser.add_argument(
        "--val-labels",
        default="",
        metavar="FILE",
        help="classes of ImageNet's validation images, where they are not its 50,000",
    )
    parser.add_argument(
        "--manual-dir", default="", help="of files that TFDS cannot download"
    )
    parser.add_argument(
        "--shard-mib",
        type=commands.number,
        default=128.0,
        help="of images that are written, and done again, together (default 128)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what it takes, and write nothing"
    )
    parser.add_argument(
        "--check", metavar="OUT/NAME", help="read a prepared set again, and verify it"
    )


def run(args: argparse.Namespace) -> int:
    from sws_jax.runtime import entry, signals

    try:
        with _terminable():
            _run(args)
    except KeyboardInterrupt as error:
        print("\nstopped: the same command goes on", flush=True)
        if isinstance(error, _Terminated):
            return signals.EXIT_AGAIN
        return entry.EXIT_INTERRUPTED
    return 0


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Within it, SIGTERM and Ctrl-C raise, so that half-written files are removed."""

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is asked once
        raise _Terminated

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, end)}
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        raising = signal.default_int_handler
        before[signal.SIGINT] = signal.signal(signal.SIGINT, raising)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(args: argparse.Namespace) -> None:
    """Checks the flags, and verifies a set or prepares one.

    Raises:
      UserError: the flags do not fit each other, or see `_prepare`.
    """
    from sws_jax.errors import UserError
    from sws_jax.prepare import manifests
    from sws_jax.runtime import host

    workers = host.cores() if args.workers is None else args.workers
    if workers < 1 or not 0 < args.shard_mib < 2**20:
        raise UserError(
            f"--workers is at least 1 and --shard-mib above 0, and they are {workers} "
            f"and {args.shard_mib:g}"
        )
    if args.size is not None and args.size < 1:
        raise UserError(f"--size must be at least 1, and is {args.size}")
    if args.check:
        print(manifests.check(args.check, workers))
        return
    if not args.source or not args.out:
        raise UserError("prepare takes a SOURCE and an OUT, or --check OUT/NAME")
    if args.name is not None:
        _check_name(args.name, args.size)
    _prepare(args, workers)


def _prepare(args: argparse.Namespace, workers: int) -> None:
    """Prepares a set from its source, while no other process does.

    Args:
      args: of the command, with a source and a directory.
      workers: number of processes.

    Raises:
      UserError: the source cannot be prepared, or nothing can be written at OUT.
    """
    from sws_jax.data import prepared
    from sws_jax.errors import UserError
    from sws_jax.prepare import parts, sources
    from sws_jax.storage import files, locks

    path = os.path.expanduser(args.source)
    out = os.path.expanduser(args.out)
    for location in (path, out):
        if "://" in location:
            raise UserError(
                f"{location} is no path on this machine: prepare a set on a disk, and "
                f"copy it to where it shall be read"
            )
    try:
        if not args.dry_run:
            os.makedirs(out, exist_ok=True)
    except OSError as error:
        raise files.Unwritable(out, error) from None
    if os.path.isdir(out) and not os.access(out, os.W_OK):
        raise UserError(f"{out} cannot be written to: take another OUT")
    if path.startswith(prepared.PREFIX):
        path = _standard(args, path.removeprefix(prepared.PREFIX), out, workers)
        if args.size is None:
            return
    elif args.manual_dir:
        raise UserError("--manual-dir is for a SOURCE tfds:NAME")
    print(f"looking through {path}", flush=True)
    source = sources.open_source(path, labels=args.val_labels)
    for note in source.notes:
        print(note, flush=True)
    set_name = source.name if args.name is None else args.name
    if not args.partial:
        parts.check_counts(set_name, source)
    name = _name(args, source.name)
    lock = os.path.join(out, f".{name}.lock")
    with locks.claimed(lock, remedy=_REMEDY) as alone:
        if not alone:
            raise UserError(f"another process is preparing {os.path.join(out, name)}")
        directory = os.path.join(out, name)
        _write_set(_request(args, source, path, directory, workers), args)


def _standard(args: argparse.Namespace, name: str, out: str, workers: int) -> str:
    """The directory of a set of TFDS, prepared if it is not."""
    from sws_jax.data import prepared
    from sws_jax.errors import UserError
    from sws_jax.prepare import standard
    from sws_jax.storage import locks

    source = prepared.PREFIX + name
    if args.name and args.size is None:
        raise UserError(f"--name is not for {source}: TFDS names its own")
    request = standard.Request(name, out, args.manual_dir, args.partial)
    with locks.claimed(standard.lock(request), remedy=_REMEDY) as alone:
        if not alone:
            raise UserError(f"another process is preparing {source} in {out}")
        directory = standard.find(request, workers, write=not args.dry_run)
        if not directory:
            if args.dry_run:
                raise UserError(
                    f"--dry-run is not for {source}, which is not prepared: TFDS says "
                    f"itself what it takes"
                )
            standard.run(request)
            directory = prepared.find(name, out)
    print(f"prepared: data.source={source} data.directory={out}")
    return directory


def _check_name(name: str, size: int | None) -> None:
    from sws_jax.errors import UserError

    if not re.fullmatch(_RECORDS if size is None else _ARRAYS, name):
        first = " (A to Z), a letter first" if size is None else ""
        raise UserError(
            f"--name {name!r} is not made of letters, digits and underscores{first}"
        )


def _name(args: argparse.Namespace, source: str) -> str:
    """Name of the set: the one of --name, or one made of the source's."""
    if args.name is not None:
        return args.name
    if args.size is not None:
        plain = re.sub(r"\W+", "_", source).strip("_").lower() or "images"
        return f"{plain}-{args.size}"
    bare = unicodedata.normalize("NFKD", source)  # letters without their accents
    ascii_alone = bare.encode("ascii", "ignore").decode()
    plain = re.sub(r"\W+", "_", ascii_alone).strip("_").lower() or "images"
    return plain if plain[0].isalpha() else f"images_{plain}"


def _request(
    args: argparse.Namespace, source: Source, path: str, directory: str, workers: int
) -> sets.Request:
    """The set to be made, in the form that the flags ask for.

    Args:
      args: of the command.
      source: of the images.
      path: of the source.
      directory: OUT/NAME; array_record files are in a directory of their version there.
      workers: number of processes.

    Raises:
      UserError: array_record files are to be made of a prepared set.
    """
    from sws_jax.errors import UserError
    from sws_jax.prepare import forms, records, resized, sets

    shard_bytes = max(int(args.shard_mib * 2**20), 1)
    options = {"source": os.path.abspath(path), "shard_mib": args.shard_mib}
    name = os.path.basename(directory)
    if args.size is None:
        if source.kind == "prepared set":
            raise UserError(
                f"{path} is prepared already; --size N makes resized arrays of it"
            )
        options |= {"kind": "records"}
        form: forms.Form = records.Records(source, name, VERSION, shard_bytes)
        directory = os.path.join(directory, VERSION)
    else:
        options |= {"kind": "arrays", "size": args.size}
        form = resized.Arrays(source, name, args.size, shard_bytes)
    return sets.Request(form, directory, options, args.unreadable, workers)


def _write_set(request: sets.Request, args: argparse.Namespace) -> None:
    """Says what a set needs, and makes what is missing of it.

    Args:
      request: of the set.
      args: of the command; with ``--dry-run`` nothing is written.

    Raises:
      UserError: the disk has too little space, or an image cannot be read.
    """
    from sws_jax.prepare import sets
    from sws_jax.runtime import host, words

    source = request.form.source
    counts = ", ".join(f"{len(part):,} {key}" for key, part in source.parts.items())
    print(f"{source.kind}: {counts} images of {len(source.classes):,} classes")
    shards = sets.inspect(request)
    if shards.changed:
        print(f"the source has changed since: {shards.changed} shards are made anew")
    if shards.damaged:
        print(f"damaged, and made anew: {', '.join(shards.damaged[:3])}")
    if not shards.todo and shards.described and os.path.isdir(request.directory):
        print(f"{request.directory} is prepared already, and whole")
    else:
        sets.check_space(request, shards, 1.0)  # before an image is tried
        seconds, growth = sets.sample(request, shards)
        needed, free = sets.check_space(request, shards, growth)
        processes = min(request.workers, max(len(shards.todo), 1))
        workers = f"{processes} worker{'s' * (processes > 1)}"
        at_once = min(processes, host.cores())
        took = words.duration(seconds * shards.images / at_once)
        kept = f", {len(shards.kept)} are there" if shards.kept else ""
        print(
            f"{request.directory}: {len(shards.todo)} shards to make{kept}, "
            f"{words.rounded(needed)} of {words.rounded(free)} free, about {took} with "
            f"{workers} ({1000 * seconds:.1f} ms an image)",
            flush=True,
        )
        if args.dry_run:
            return
        sets.make(request, shards)
    _tell(request)


def _tell(request: sets.Request) -> None:
    """Prints what was left out, and how a run takes the set."""
    from sws_jax.prepare import manifests, records
    from sws_jax.storage import documents

    manifest = documents.read_json(os.path.join(request.directory, manifests.MANIFEST))
    left_out = [n for e in manifest["shards"].values() for n in e["left_out"]]
    if left_out:
        print(f"{len(left_out):,} images are left out, the first: {left_out[0]}")
    out, name = os.path.split(request.directory)
    if isinstance(request.form, records.Records):
        out, name = os.path.split(out)
        print(f"prepared: data.source=tfds:{name} data.directory={out}")
    else:
        print(f"prepared: data.source={request.directory}")
