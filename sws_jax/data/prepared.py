"""Sets that TFDS has prepared: their directories and shards, without the network."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sws_jax.errors import UserError
from sws_jax.storage import paths

PREFIX = "tfds:"
_REQUEST = re.compile(r"(\w+)(?:/([^/:]+))?(?::(\d+\.\d+\.\d+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def suggestion(name: str) -> str:
    """The source ``tfds:NAME`` whose name is close to another one; empty if none is."""
    try:
        known = _known()
    except UserError:
        return ""
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.8)
    return PREFIX + close[0] if close else ""


def library() -> Any:
    """TensorFlow Datasets, which is loaded only where it is used.

    Raises:
      UserError: it is not installed.
    """
    try:
        import tensorflow_datasets
    except ImportError:
        raise UserError(
            f"a source {PREFIX}NAME needs packages that are not installed: pip install "
            f"tensorflow-datasets array_record importlib_resources"
        ) from None
    return tensorflow_datasets


def reason(error: Exception) -> str:
    """The first sentence of another library's message."""
    return re.split(r"\n|\. ", str(error))[0] or type(error).__name__


def _known() -> list[str]:
    """Sets whose code is part of TFDS; others would be looked up on the network."""
    return library().list_builders(with_community_datasets=False)


def find(name: str, root: str) -> str:
    """The directory of a prepared version: ROOT/NAME[/CONFIG]/VERSION.

    Args:
      name: NAME, NAME/CONFIG, or either of them with a version, as in NAME:1.0.0.
      root: the directory of prepared sets.

    Raises:
      UserError: the name is of another form, unknown, ambiguous, or not prepared.
    """
    request = _REQUEST.fullmatch(name)
    if not request:
        raise UserError(
            f"{PREFIX}{name} is not of the form {PREFIX}NAME, {PREFIX}NAME/CONFIG or, "
            f"with a version as in :1.0.0, either of them"
        )
    bare, config, version = request.groups()
    folder = os.path.join(root, bare)
    if not config and not versions(folder):
        configs = [name for name in _folders(folder) if versions(f"{folder}/{name}")]
        if len(configs) > 1:
            raise UserError(
                f"{folder} holds several configurations: take one of "
                + ", ".join(f"{PREFIX}{bare}/{config}" for config in configs)
            )
        config = configs[0] if configs else None
    folder = os.path.join(folder, config) if config else folder
    present = versions(folder)
    if bare not in _folders(root) and bare not in _known():
        hint = suggestion(bare)
        raise UserError(
            f"there is no {PREFIX}{name}: TFDS knows no {bare}, and none is prepared "
            f"in {root} (data.directory)"
            + (f"; perhaps {hint} is meant" if hint else "")
        )
    if not present or version and version not in present:
        others = f", which holds {', '.join(present)}" if present else ""
        raise UserError(
            f"{PREFIX}{name} is not prepared in {root} (data.directory){others}: "
            f"{_remedy(name, root)}"
        )
    return os.path.join(folder, version or present[-1])


def _remedy(name: str, root: str) -> str:
    return (
        f"where TensorFlow is installed, run python -m sws_jax prepare "
        f"{shlex.join([PREFIX + name, root])}"
    )


def _folders(path: str) -> list[str]:
    try:
        return paths.folders(path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} cannot be listed ({reason})") from None


def versions(path: str) -> list[str]:
    """Prepared versions in the folder of a set, oldest first.

    TFDS gives a version that is not finished a name of another form.
    """
    names = filter(_VERSION.fullmatch, _folders(path))
    return sorted(names, key=lambda version: [int(n) for n in version.split(".")])


def builder(path: str) -> Any:
    """TFDS's builder of a prepared version, from its directory, without the set's code.

    Raises:
      UserError: the directory is not complete, or holds no array_record files.
    """
    tfds = library()
    try:
        builder = tfds.builder_from_directory(path)
        formats = {form.value for form in builder.info.available_file_formats()}
        if "array_record" in formats:
            anyway = dict(override=True, override_if_initialized=True)
            builder.info.set_file_format("array_record", **anyway)
            return builder
    except Exception as error:  # of any kind, those of the description's parser too
        raise UserError(
            f"{path} is not a complete TFDS set, prepare it again ({reason(error)})"
        ) from None
    raise UserError(
        f"{path} is prepared as {', '.join(sorted(formats))}, and reading in any order "
        f"needs array_record: where TensorFlow is installed, run tfds convert_format "
        f"--dataset_version_dir={path} --out_file_format=array_record"
    )


def check_shards(split: Any, path: str) -> None:
    """Refuses a split with a file that is missing or has another number of records.

    Raises:
      UserError: naming the first of the files.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    def problem(shard) -> str:
        try:
            reader = ArrayRecordReader(os.fspath(shard.filename))
            count = reader.num_records()
            reader.close()
        except Exception as error:  # RuntimeError, and others in other versions
            return reason(error)
        if count == shard.examples_in_shard:
            return ""
        return f"{count} records of {shard.examples_in_shard}"

    shards = list(split.file_instructions)
    with ThreadPoolExecutor() as pool:
        bad = [
            (shard.filename, message)
            for shard, message in zip(shards, pool.map(problem, shards), strict=True)
            if message
        ]
    if bad:
        raise UserError(
            f"{len(bad)} of {len(shards)} files of split {split.name} in {path} are "
            f"missing or damaged, prepare the set again (the first: "
            f"{os.path.basename(bad[0][0])}, {bad[0][1]})"
        )
