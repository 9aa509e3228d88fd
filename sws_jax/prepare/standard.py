"""Sets that TFDS knows, prepared by TFDS, with TensorFlow in a process of its own.

    python -m sws_jax.prepare.standard REQUEST ERROR

is that process. It takes a `Request` as JSON, and a file for the message of an error,
as its output shows the progress of TFDS. Nothing else here imports TensorFlow.

TFDS prepares a set in a directory of our own, ``incomplete.tfds.NAME``. What is in the
set's directory is removed when there is a whole set to replace it.
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
from sws_jax.prepare import forms, manifests, parts, work
from sws_jax.runtime import words
from sws_jax.storage import files

_DOWNLOADS = "downloads"  # in OUT
_INSTALL = "pip install tensorflow-cpu"


@dataclasses.dataclass(frozen=True)
class Request:
    """A set that TFDS is to prepare.

    Attributes:
      name: NAME, NAME/CONFIG or either with :VERSION.
      out: the directory that gets NAME.
      manual_dir: of files that TFDS cannot download, as ImageNet's tars.
      partial: whether a well-known set with too few images is taken.
    """

    name: str
    out: str
    manual_dir: str = ""
    partial: bool = False


def check_tensorflow(name: str) -> None:
    """Refuses a set of TFDS where TensorFlow is not installed.

    Raises:
      UserError: with what to install.
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
    document = json.dumps(dataclasses.asdict(request))
    with tempfile.TemporaryDirectory(prefix="sws_jax_") as folder:
        message = os.path.join(folder, "error")
        command = [sys.executable, "-m", "sws_jax.prepare.standard", document, message]
        with work.signals_deferred():
            # It reads a pipe, which closes when this process ends in any way.
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
        if os.path.isfile(message):
            with open(message, encoding="utf-8") as file:
                raise UserError(file.read())
    how = f"signal {-code}" if code < 0 else f"code {code}"
    raise UserError(
        f"TFDS ended unexpectedly without {request.name} ({how}), perhaps for want of "
        f"memory: the same command begins it anew, and what it downloaded stays"
    )


def _environment() -> dict[str, str]:
    """Environment variables of the process, with which it prints less."""
    settings = {"TF_CPP_MIN_LOG_LEVEL": "2"}  # no warnings of TensorFlow
    if not sys.stderr.isatty():
        settings["TQDM_MININTERVAL"] = "10"  # seconds between the lines of a bar
    return {**settings, **os.environ}


def lock(request: Request) -> str:
    """The lock file of a set, which a process holds while it finds or prepares it."""
    return os.path.join(request.out, f".{_bare(request)}.lock")


def _bare(request: Request) -> str:
    """The set's name without configuration and version, which share its directory."""
    return re.sub(r"\W.*", "", request.name)


def find(request: Request, workers: int, *, write: bool = True) -> str:
    """The directory of a set that is prepared and whole; or empty.

    A set that TFDS has prepared without this command gets a manifest.

    Args:
      request: see `Request`.
      workers: processes that verify the set.
      write: whether a manifest may be written.

    Raises:
      UserError: it is a well-known set with another number of images.
    """
    try:
        directory = prepared.find(request.name, request.out)
    except UserError:
        return ""
    has_manifest = os.path.isfile(os.path.join(directory, manifests.MANIFEST))
    if not has_manifest:
        _check_counts(directory, request)
    try:
        if has_manifest:
            manifests.check(directory, workers)
        else:
            _check_shards(directory)
    except UserError as error:
        print(f"{error}", flush=True)
        return ""
    if not has_manifest and write:
        _write_manifest(directory, request)
    return directory


def make(request: Request) -> str:
    """Has TFDS download and prepare a set as array_record; returns its directory.

    A damaged set stays in its directory until it can be replaced.

    Raises:
      UserError: with the reason of TFDS.
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
    finished = os.fspath(builder.data_path)
    if not _is_finished(finished, request):
        check_space(builder.info, request.out, building)
        shutil.rmtree(building, ignore_errors=True)  # TFDS begins anew
        downloads = os.path.join(request.out, _DOWNLOADS)  # they are kept
        settings = {"manual_dir": request.manual_dir} if request.manual_dir else {}
        config = library.download.DownloadConfig(**settings)
        try:
            builder.download_and_prepare(download_dir=downloads, download_config=config)
        except Exception as error:  # of any kind: downloads, disks, TensorFlow
            reason = words.brief(error, 300)
            raise UserError(f"TFDS cannot prepare {request.name} ({reason})") from None
    try:
        _check_counts(finished, request)
    except UserError as error:
        raise UserError(f"{error} (what there is stays in {finished})") from None
    _write_manifest(finished, request)
    directory = os.path.join(request.out, os.path.relpath(finished, building))
    _replace(finished, directory, building)
    return directory


def _is_finished(directory: str, request: Request) -> bool:
    """Whether an earlier process has finished the set, and it can be taken."""
    if not os.path.isdir(directory):
        return False
    try:
        _check_counts(directory, request)
        _check_shards(directory)
    except UserError:  # it is not complete, or damaged
        return False
    return True


def _replace(finished: str, directory: str, building: str) -> None:
    """Moves a whole set to its directory, and then removes what was there before."""
    try:
        os.makedirs(os.path.dirname(directory), exist_ok=True)
        if os.path.isdir(directory):
            os.rename(directory, f"{finished}.replaced")
        os.rename(finished, directory)
    except OSError as error:
        raise files.Unwritable(directory, error) from None
    shutil.rmtree(building, ignore_errors=True)


def _check_counts(directory: str, request: Request) -> None:
    """Refuses a well-known set with another number of images."""
    info = prepared.builder(directory).info
    counts = {name: split.num_examples for name, split in info.splits.items()}
    difference = parts.miscounts(info.name, counts)
    if difference and not request.partial:
        raise UserError(
            f"{info.name} is not whole, {difference}: complete its files, or take it "
            f"as it is with --partial"
        )


def _check_shards(directory: str) -> None:
    """Refuses a set with missing or damaged files."""
    for split in prepared.builder(directory).info.splits.values():
        prepared.check_shards(split, directory)


def check_space(info: Any, out: str, building: str) -> None:
    """Prints the bytes that a set takes, where TFDS knows them, and the free bytes.

    Args:
      info: of the set, from TFDS.
      out: the directory that gets the set and its downloads.
      building: a directory that is removed before TFDS begins.

    Raises:
      UserError: fewer are free.
    """
    present = _downloaded(os.path.join(out, _DOWNLOADS, info.name))
    downloads = max(int(info.download_size or 0) - present, 0)
    needed = downloads + int(info.dataset_size or 0)
    folder, free = files.free_space(out)
    free += _taken(building)
    shown = (
        f"{words.rounded(needed)} with its downloads" if needed else "of unknown size"
    )
    print(
        f"{info.full_name}: {shown}, {words.rounded(free)} free; how long TFDS takes "
        f"is not known beforehand, and its bars follow",
        flush=True,
    )
    if needed > free:
        raise UserError(
            f"{info.full_name} needs {words.rounded(needed)}, and {folder} has "
            f"{words.rounded(free)} free: make room, or take another OUT"
        )


def _downloaded(directory: str) -> int:
    """Bytes of complete downloads: TFDS writes a description beside each of them."""
    paths = _files(directory)
    return sum(os.path.getsize(path) for path in paths if f"{path}.INFO" in paths)


def _taken(directory: str) -> int:
    """Bytes on the disk of a directory's files; the unit of `st_blocks` is 512."""
    return sum(os.lstat(path).st_blocks * 512 for path in _files(directory))


def _files(directory: str) -> set[str]:
    """Paths of all files in a directory and its folders."""
    return {
        os.path.join(folder, name)
        for folder, _, names in os.walk(directory)
        for name in names
    }


def _write_manifest(directory: str, request: Request) -> None:
    """Writes the manifest of a set, with digests of all of its files."""
    info = prepared.builder(directory).info
    shards: dict[str, forms.ShardRecord] = {}
    for name, split in info.splits.items():
        for file, count in zip(
            sorted(split.filenames), split.shard_lengths, strict=True
        ):
            entry = {"split": name, "images": count, "left_out": [], "source": ""}
            shards[file] = forms.checked(os.path.join(directory, file)) | entry
    others = [n for n in sorted(os.listdir(directory)) if n not in shards]
    manifest = {
        "version": manifests.VERSION,
        "options": {"kind": "tfds", "source": prepared.PREFIX + request.name},
        "shards": shards,
        "files": {
            name: forms.checked(os.path.join(directory, name)) for name in others
        },
    }
    files.write_json(os.path.join(directory, manifests.MANIFEST), manifest)


def main() -> int:
    """The process that runs TFDS; its exit code is 2 after an error with a message."""
    document, message_file = sys.argv[1:]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    request = Request(**json.loads(document))
    try:
        make(request)
    except UserError as error:
        message = str(error)
    except Exception as error:  # of any kind, of the libraries
        message = f"TFDS ended without {request.name} ({prepared.reason(error)})"
    else:
        return 0
    files.write_text(message_file, message)
    return 2


def _end_with_parent() -> None:
    """Ends this process when its parent has ended."""
    os.read(0, 1)  # it returns when the pipe closes, as nothing is written to it
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
