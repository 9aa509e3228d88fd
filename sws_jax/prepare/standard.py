"""Sets that TFDS knows, prepared by TFDS, with TensorFlow in a process of its own.

    python -m sws_jax.prepare.standard REQUEST

is that process; its one argument is a `Request` as JSON. Nothing else here imports
TensorFlow.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from typing import Any

from sws_jax import files
from sws_jax.data import prepared
from sws_jax.errors import UserError
from sws_jax.prepare import forms, sets, sources

_INSTALL = "pip install tensorflow-cpu"


@dataclasses.dataclass(frozen=True)
class Request:
    """Attributes:
    name: NAME, NAME/CONFIG or either with :VERSION.
    out: the directory that gets NAME.
    manual_dir: of files that TFDS cannot download (ImageNet's tars).
    partial: whether a set of fewer images than are known is taken.
    """

    name: str
    out: str
    manual_dir: str = ""
    partial: bool = False


def check_tensorflow(name: str) -> None:
    """Raises:
    UserError: TensorFlow is not installed.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"{prepared.PREFIX}{name} is prepared by TFDS with TensorFlow, which is "
            f"not installed: {_INSTALL} (for this command alone; training needs none)"
        )


def run(request: Request) -> None:
    """Prepares a set in another process, and waits for it.

    Raises:
      UserError: there is no TensorFlow, or the set cannot be prepared.
    """
    check_tensorflow(request.name)
    command = [sys.executable, "-m", "sws_jax.prepare.standard"]
    given = json.dumps(dataclasses.asdict(request))
    done = subprocess.run([*command, given], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"code {done.returncode}"]
        said = [line for line in lines if line.startswith("sws_jax: ")]
        raise UserError(
            said[-1].removeprefix("sws_jax: ")
            if said
            else f"TFDS ended without {request.name} ({lines[-1]})"
        )


def find(request: Request, workers: int) -> str:
    """The directory of a set that is prepared, and whole; or nothing.

    A set that TFDS has prepared without this command gets a manifest.

    Raises:
      UserError: it has not the images that it should have.
    """
    try:
        place = prepared.find(request.name, request.out)
    except UserError:
        return ""
    if not os.path.isfile(os.path.join(place, sets.MANIFEST)):
        _check_counts(place, request)
        _account(place, request)
        return place
    try:
        sets.check(place, workers)
    except UserError as error:
        print(f"{error}", flush=True)
        return ""
    return place


def prepare(request: Request) -> str:
    """Has TFDS download and prepare a set as array_record; returns its directory.

    What stands in its place is removed: it is damaged (see `find`).

    Raises:
      UserError: in one sentence, what TFDS said.
    """
    library = prepared.library()
    try:
        builder = library.builder(
            request.name,
            data_dir=request.out,
            file_format="array_record",
            try_gcs=False,
        )
    except Exception as error:  # of any kind
        raise UserError(
            f"TFDS has no {request.name} ({prepared.reason(error)})"
        ) from None
    place = os.fspath(builder.data_path)
    short = f"{place}.partial"
    if request.partial and os.path.isdir(short):
        os.rename(short, place)
    else:
        _say(builder.info, request.out)
        _sweep(place)
        settings = {"manual_dir": request.manual_dir} if request.manual_dir else {}
        config = library.download.DownloadConfig(**settings)
        try:
            builder.download_and_prepare(download_config=config)
        except Exception as error:  # of any kind: downloads, disks, TensorFlow
            said = " ".join(str(error).split())[:300]
            raise UserError(f"TFDS cannot prepare {request.name} ({said})") from None
    try:
        _check_counts(place, request)
    except UserError as error:
        os.rename(place, short)
        raise UserError(f"{error} (what there is stays in {short})") from None
    _account(place, request)
    return place


def _sweep(place: str) -> None:
    """TFDS begins anew what was broken off; what it has downloaded stays."""
    folder, version = os.path.split(place)
    if os.path.isdir(folder):
        for name in os.listdir(folder):
            broken_off = name.startswith("incomplete.") and name.endswith(f"_{version}")
            if broken_off or name in (version, f"{version}.partial"):
                shutil.rmtree(os.path.join(folder, name))


def _check_counts(place: str, request: Request) -> None:
    info = prepared.builder(place).info
    counts = {name: split.num_examples for name, split in info.splits.items()}
    wrong = sources.miscounts(info.name, counts)
    if wrong and not request.partial:
        raise UserError(
            f"{info.name} is not whole, {wrong}: complete its files, or take it as it "
            f"is with --partial"
        )


def _say(info: Any, out: str) -> None:
    """Room that TFDS says it takes, where it knows.

    Raises:
      UserError: there is less.
    """
    needed = int(info.download_size or 0) + int(info.dataset_size or 0)
    folder = os.path.abspath(out)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    free = shutil.disk_usage(folder).free
    known = f"{sets.size(needed)} with its downloads" if needed else "of unknown size"
    print(f"{info.full_name}: {known}, {sets.size(free)} free", flush=True)
    if needed > free:
        raise UserError(
            f"{info.full_name} needs {sets.size(needed)}, and {folder} has "
            f"{sets.size(free)} free: make room, or take another OUT"
        )


def _account(place: str, request: Request) -> None:
    """Writes down what the files of a set are known by."""
    info = prepared.builder(place).info
    shards: dict[str, forms.Entry] = {}
    for name, split in info.splits.items():
        for file, count in zip(
            sorted(split.filenames), split.shard_lengths, strict=True
        ):
            about = {"split": name, "images": count, "left_out": [], "source": ""}
            shards[file] = forms.checked(os.path.join(place, file)) | about
    other = [n for n in sorted(os.listdir(place)) if n not in shards]
    manifest = {
        "version": sets.VERSION,
        "options": {"kind": "tfds", "source": prepared.PREFIX + request.name},
        "shards": shards,
        "files": {name: forms.checked(os.path.join(place, name)) for name in other},
    }
    files.write_json(os.path.join(place, sets.MANIFEST), manifest)


def main() -> int:
    try:
        prepare(Request(**json.loads(sys.argv[1])))
    except UserError as error:
        print(f"sws_jax: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
