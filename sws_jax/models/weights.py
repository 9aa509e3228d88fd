"""Weights as one `.safetensors` file with their description in the header."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors

from sws_jax import arguments, trees
from sws_jax.errors import UserError
from sws_jax.models.description import DESCRIPTION, Description
from sws_jax.runtime import words
from sws_jax.storage import array_files, contents, files, paths

_PROJECT, _ENDING = "sws_jax", ".safetensors"
_FORMAT = f"{_PROJECT} 1"
_NUMBERS = ("float32", "bfloat16", "float16", "float64")


@arguments.checked(params=arguments.anything, description=DESCRIPTION)
def save(
    path: str | os.PathLike[str], params: trees.Tree, description: Description
) -> None:
    """Writes a tree of arrays, whole or not at all.

    Args:
      path: ends in ``.safetensors``.
      params: nested dict of numpy or jax arrays.
      description: goes into the header.

    Raises:
      UserError: nothing could read such a file again.
    """
    path = os.fspath(path)
    if not path.endswith(_ENDING):
        raise UserError(f"{path} must end in {_ENDING}: it could not be read again")
    flat = on_host(path, params)
    about = description.to_json()
    metadata = {"format": _FORMAT, "description": about, "digest": _digest(about, flat)}
    array_files.write_tensors(path, flat, metadata)


@arguments.checked()
def load(path: str | os.PathLike[str]) -> tuple[trees.Tree, Description]:
    """The inverse of `save`, with numpy leaves.

    Raises:
      UserError: no such file, a truncated, damaged or foreign one, or a description
        that contradicts itself; the sentence names the file.
    """
    path = os.fspath(path)
    with _opened(path) as file:
        metadata = file.metadata()
        description = _description(path, metadata)
        flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    digest = metadata.get("digest")  # files of older versions have none
    if digest and digest != _digest(metadata["description"], flat):
        raise UserError(
            f"{path} does not hold what was written (its digest is another): it is "
            f"damaged, copy it again"
        )
    for name, array in flat.items():
        if array.dtype.name not in _NUMBERS:
            raise UserError(
                f"{path} holds {array.dtype} ({name}), and weights are numbers of "
                f"{', '.join(_NUMBERS)}: it was not written by this project"
            )
    return trees.unflatten(flat), description


@arguments.checked(path=arguments.path, params=arguments.anything)
def on_host(path: str, params: trees.Tree) -> dict[str, np.ndarray]:
    """Arrays by their ``a/b/c`` names, if all have values that a file can hold.

    Args:
      path: that they are to be written to, for the message.
      params: nested dict of numpy or jax arrays.

    Raises:
      UserError: something else, whole numbers, or arrays without values here.
    """
    flat = check_names("params", params)
    for name, leaf in flat.items():
        kind = getattr(leaf.dtype, "name", str(leaf.dtype)).removeprefix("torch.")
        if kind not in _NUMBERS:
            raise UserError(
                f"{path} cannot be written ({name} of params holds {kind}): weights "
                f"are numbers of {', '.join(_NUMBERS)}"
            )
    try:
        flat = trees.to_host(flat)
    except Exception as error:  # noqa: BLE001  what leaves raise is of many kinds
        reason = " ".join(str(error).split(". ")[0].split("\n")[0].split())
        raise UserError(
            f"{path} cannot be written: the arrays of params do not all have their "
            f"values here, as they have outside of jax.jit ({reason})"
        ) from None
    return {
        name: a.astype(a.dtype.newbyteorder("="), copy=False)
        for name, a in flat.items()
    }


def check_names(what: str, params: trees.Tree, inside: str = "") -> dict[str, Any]:
    """Leaves by their ``a/b/c`` names, as files have them; all of them arrays.

    Args:
      what: they are, for the message.
      params: nested dict of arrays, tracers or shapes.
      inside: name of the dict in which these stand.

    Raises:
      UserError: something else, or a key that is no part of such a name.
    """
    flat: dict[str, Any] = {}
    if not isinstance(params, Mapping):
        if not inside or not hasattr(params, "shape") or not hasattr(params, "dtype"):
            raise UserError(
                f"{what} must be a nested dict of numpy or jax arrays, and "
                f"{inside or 'it'} is a {type(params).__name__}"
            )
        return {inside: params}
    for key, value in params.items():
        if not isinstance(key, str) or not key or "/" in key:
            raise UserError(
                f"{what} is a nested dict whose keys are names without /, and has the "
                f"key {arguments.quoted(str(key))}"
            )
        flat |= check_names(what, value, f"{inside}/{key}" if inside else key)
    return flat


def _digest(description: str, flat: Mapping[str, np.ndarray]) -> str:
    """A digest of the description and of every array, whatever their order."""
    parts = [
        description,
        *(f"{name} {_array_digest(flat[name])}" for name in sorted(flat)),
    ]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def _array_digest(array: np.ndarray) -> str:
    array = np.ascontiguousarray(array)
    state = hashlib.blake2b(f"{array.dtype}{array.shape}".encode(), digest_size=16)
    state.update(array.reshape(-1).view(np.uint8).data)
    return state.hexdigest()


@arguments.checked()
def describe(path: str | os.PathLike[str]) -> Description:
    """The description alone, without reading an array; raises as `load`."""
    path = os.fspath(path)
    with _opened(path) as file:
        return _description(path, file.metadata())


@arguments.checked()
def is_ours(path: str | os.PathLike[str]) -> bool:
    """Whether this project wrote a file, in any version of it; raises as `load` where
    it is damaged."""
    path = os.fspath(path)
    if not path.lower().endswith(_ENDING):
        return False
    with _opened(path) as file:
        return _of_this_project((file.metadata() or {}).get("format", ""))


def _of_this_project(format_: str) -> bool:
    return re.match(rf"{_PROJECT}\b", format_) is not None


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    """A weights file, open for reading while the block lasts.

    Raises:
      UserError: the file is missing, damaged, or not a .safetensors file.
    """
    if not paths.exists(path):
        with files.errors_as_refusals(path), contextlib.suppress(FileNotFoundError):
            paths.version(path)  # says so, where it may not be known
        raise UserError(f"there is no weights file {path}")
    if not paths.is_remote(path):
        files.check_readable(path)
    if not path.lower().endswith(_ENDING):  # Some systems write it in capitals.
        raise UserError(
            f"{path} is no .safetensors file of this project: {_convert(path)}"
        )
    try:
        with safetensors.safe_open(paths.here(path), framework="numpy") as file:
            yield file
    except UserError:
        raise
    except (safetensors.SafetensorError, OSError, ValueError, TypeError) as error:
        if reason := contents.mismatch(path, ".safetensors"):
            raise UserError(
                f"{path} is not a readable .safetensors file ({reason})"
            ) from None
        raise UserError(
            f"{path} is not a readable .safetensors file ({error}); it may be cut off: "
            f"copy it again"
        ) from None


def _description(path: str, metadata: dict[str, str] | None) -> Description:
    metadata = metadata or {}
    if (format_ := metadata.get("format", "")) != _FORMAT:
        if _of_this_project(format_):
            raise UserError(
                f"{path} was written by another version of this project (its format "
                f"is {format_!r}, and {_FORMAT!r} is read here): install a newer one"
            )
        raise UserError(
            f"{path} was not written by this project: its header says format "
            f"{metadata.get('format')!r} and not {_FORMAT!r}; {_convert(path)}"
        )
    try:
        return Description.from_json(metadata.get("description", ""))
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}") from None


def _convert(path: str) -> str:
    return (
        f"weights of other programs are converted first (python -m sws_jax convert "
        f"{path} OUT.safetensors)"
    )


@arguments.checked(expected=arguments.anything, params=arguments.anything)
def check(what: str, expected: trees.Tree, params: trees.Tree) -> None:
    """Refuses weights whose names or shapes are not those of their description.

    Args:
      what: holds them: a file's path, or an argument.
      expected: names and shapes that its description names.
      params: what is there.
    """
    lines = trees.difference(expected, check_names(what, params))
    if lines:
        raise UserError(
            f"{what} does not hold the network that its description names "
            f"(- missing, + surplus, ! other shape): {words.few(lines, 6, '; ')}"
        )
