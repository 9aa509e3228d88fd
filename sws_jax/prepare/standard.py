"""Sets that TFDS knows, prepared by TFDS, with TensorFlow in a process of its own.

    python -m sws_jax.prepare.standard REQUEST ERROR

is that process; it takes a `Request` as JSON, and a file for the sentence with which it
fails, so that its output is free for the progress of TFDS. Nothing else here imports
TensorFlow.

TFDS prepares a set in a directory of this command's own (``incomplete.tfds.NAME``),
and what stands in the set's place goes when there is a whole one to replace it.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from typing import Any

from sws_jax.data import prepared
from sws_jax.errors import UserError
from sws_jax.prepare import forms, sets, sources, work
from sws_jax.runtime import words
from sws_jax.storage import files

_DOWNLOADS = "downloads"  # in OUT
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
    given = json.dumps(dataclasses.asdict(request))
    with tempfile.TemporaryDirectory(prefix="sws_jax_") as folder:
        said = os.path.join(folder, "error")
        command = [sys.executable, "-m", "sws_jax.prepare.standard", given, said]
        with work.unasked():
            # It reads a pipe that ends with this process, however that ends.
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, env=_environment()
            )
        with process as child:
            try:
                code = child.wait()
            except BaseException:
                child.kill()
                raise
        if not code:
            return
        if os.path.isfile(said):
            with open(said, encoding="utf-8") as file:
                raise UserError(file.read())
    how = f"signal {-code}" if code < 0 else f"code {code}"
    raise UserError(
        f"TFDS ended unexpectedly without {request.name} ({how}), perhaps for want of "
        f"memory: the same command begins it anew, and what it downloaded stays"
    )


def _environment() -> dict[str, str]:
    """Of the process: what it says is for a person, or for a log."""
    settings = {"TF_CPP_MIN_LOG_LEVEL": "2"}  # warnings of TensorFlow are of no use
    if not sys.stderr.isatty():
        settings["TQDM_MININTERVAL"] = "10"  # seconds between states of a bar
    return {**settings, **os.environ}


def lock(request: Request) -> str:
    """The file that a process holds while it looks for a set, or has it prepared."""
    return os.path.join(request.out, f".{_bare(request)}.lock")


def _bare(request: Request) -> str:
    """The set's own name; its configurations and versions share directories."""
    return re.sub(r"\W.*", "", request.name)


def find(request: Request, workers: int, *, write: bool = True) -> str:
    """The directory of a set that is prepared, and whole; or nothing.

    A set that TFDS has prepared without this command gets a manifest, where one may
    `write`.

    Raises:
      UserError: it has not the images that it should have.
    """
    try:
        place = prepared.find(request.name, request.out)
    except UserError:
        return ""
    known = os.path.isfile(os.path.join(place, sets.MANIFEST))
    if not known:
        _check_counts(place, request)
    try:
        if known:
            sets.check(place, workers)
        else:
            _check_shards(place)
    except UserError as error:
        print(f"{error}", flush=True)
        return ""
    if not known and write:
        _account(place, request)
    return place


def prepare(request: Request) -> str:
    """Has TFDS download and prepare a set as array_record; returns its directory.

    A damaged one (see `find`) stands there until it can be replaced.

    Raises:
      UserError: in one sentence, what TFDS said.
    """
    library = prepared.library()
    building = os.path.join(request.out, f"incomplete.tfds.{_bare(request)}")
    try:
        builder = library.builder(
            request.name,
            data_dir=building,
            file_format="array_record",
            try_gcs=False,
        )
    except Exception as error:  # of any kind
        raise UserError(
            f"TFDS has no {request.name} ({prepared.reason(error)})"
        ) from None
    made = os.fspath(builder.data_path)
    if not _finished(made, request):
        _say(builder.info, request.out, building)
        shutil.rmtree(building, ignore_errors=True)  # TFDS begins anew
        downloads = os.path.join(request.out, _DOWNLOADS)  # which stay
        settings = {"manual_dir": request.manual_dir} if request.manual_dir else {}
        config = library.download.DownloadConfig(**settings)
        try:
            builder.download_and_prepare(download_dir=downloads, download_config=config)
        except Exception as error:  # of any kind: downloads, disks, TensorFlow
            said = " ".join(str(error).split())[:300]
            raise UserError(f"TFDS cannot prepare {request.name} ({said})") from None
    try:
        _check_counts(made, request)
    except UserError as error:
        raise UserError(f"{error} (what there is stays in {made})") from None
    _account(made, request)
    place = os.path.join(request.out, os.path.relpath(made, building))
    _replace(made, place, building)
    return place


def _finished(made: str, request: Request) -> bool:
    """Whether TFDS was done with it before, and it can be taken now."""
    if not os.path.isdir(made):
        return False
    try:
        _check_counts(made, request)
        _check_shards(made)
    except UserError:  # of what its files were then, or are
        return False
    return True


def _replace(made: str, place: str, building: str) -> None:
    """Puts a whole set in its place; what stood there goes last."""
    try:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if os.path.isdir(place):
            os.rename(place, f"{made}.replaced")
        os.rename(made, place)
    except OSError as error:
        raise files.Unwritable(place, error) from None
    shutil.rmtree(building, ignore_errors=True)


def _check_counts(place: str, request: Request) -> None:
    info = prepared.builder(place).info
    counts = {name: split.num_examples for name, split in info.splits.items()}
    wrong = sources.miscounts(info.name, counts)
    if wrong and not request.partial:
        raise UserError(
            f"{info.name} is not whole, {wrong}: complete its files, or take it as it "
            f"is with --partial"
        )


def _check_shards(place: str) -> None:
    for split in prepared.builder(place).info.splits.values():
        prepared.check_shards(split, place)


def _say(info: Any, out: str, building: str) -> None:
    """Room that TFDS says it takes, where it knows; of the time it says nothing.

    Args:
      building: a directory that goes before TFDS begins.

    Raises:
      UserError: there is less.
    """
    whole = _downloaded(os.path.join(out, _DOWNLOADS, info.name))
    downloads = max(int(info.download_size or 0) - whole, 0)
    needed = downloads + int(info.dataset_size or 0)
    folder, free = files.room(out)
    free += _taken(building)
    known = (
        f"{words.rounded(needed)} with its downloads" if needed else "of unknown size"
    )
    print(
        f"{info.full_name}: {known}, {words.rounded(free)} free; how long TFDS takes "
        f"is not known beforehand, and its bars follow",
        flush=True,
    )
    if needed > free:
        raise UserError(
            f"{info.full_name} needs {words.rounded(needed)}, and {folder} has "
            f"{words.rounded(free)} free: make room, or take another OUT"
        )


def _downloaded(directory: str) -> int:
    """Bytes of the files that TFDS has whole, each with a description beside it."""
    paths = _files(directory)
    return sum(os.path.getsize(path) for path in paths if f"{path}.INFO" in paths)


def _taken(directory: str) -> int:
    """Bytes of the disk; the unit is that of the system's call."""
    return sum(os.lstat(path).st_blocks * 512 for path in _files(directory))


def _files(directory: str) -> set[str]:
    return {
        os.path.join(folder, name)
        for folder, _, names in os.walk(directory)
        for name in names
    }


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
    given, said = sys.argv[1:]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    request = Request(**json.loads(given))
    try:
        prepare(request)
    except UserError as error:
        message = str(error)
    except Exception as error:  # of any kind, of libraries
        message = f"TFDS ended without {request.name} ({prepared.reason(error)})"
    else:
        return 0
    files.write_text(said, message)
    return 2


def _end_with_parent() -> None:
    os.read(0, 1)  # to whose end nothing comes
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
