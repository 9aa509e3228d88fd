"""The flag without which some versions of jaxlib compute wrong numbers on a CPU.

Commands, benchmarks and tests call `add` before JAX starts. A notebook or a script does
so itself, in its first line, or is told once. Importing the package changes nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import warnings

from sws_jax import private

_VARIABLE = "XLA_FLAGS"
_NAME = "xla_cpu_experimental_ynn_fusion_type"
NO_REDUCE = f"--{_NAME}=-reduce"


@dataclasses.dataclass(frozen=True)
class Tried:
    """What a version of jaxlib was found to do, and the flag that it is given for it.

    Attributes:
      date: of the trial.
      found: in the cases of `TRIED`, on a CPU.
      flag: with which they are right; empty where none is needed.
    """

    date: str
    found: str
    flag: str = ""


# Each version was tried without the flag and with it: its CPU wheel for x86-64, with
# Python 3.11, from 0.11 on 3.12; no wheel for aarch64 was. With the flag all were right
# in all cases, which are:
#   squares: `jit(vmap(lambda r: sum((eye3 @ r) ** 2)))` over 32,769 rows `[i, 0, 0]`;
#   equal numbers: `sum((x @ full_like(x, c)) * x, axis=-1)`, x of 64 x 16 x 16;
#   tokens: `sum(x @ w, axis=1)`, x of 4 x 50 x 256 (197 tokens of 384 too; 256 not);
#   many axes: a product of rank 7 or 8 summed over one axis.
# They are jax issues 39103, 39257 and 40412; `doctor` runs the first three. GPU plugin
# and libtpu parse the same variable: those of jax 0.10.2 know the flag too, which is of
# the CPU's compiler alone; those of other versions were not tried.
TRIED = {
    "0.10.0": Tried("2026-11-28", "tokens wrong", NO_REDUCE),
    "0.10.1": Tried("2026-11-28", "tokens wrong", NO_REDUCE),
    "0.10.2": Tried(
        "2026-11-28",
        "the last of the squares wrong, equal numbers wrong, many axes crash",
        NO_REDUCE,
    ),
    "0.11.0": Tried("2026-11-28", "equal numbers wrong, many axes crash", NO_REDUCE),
    "0.11.1": Tried("2026-11-28", "equal numbers wrong", NO_REDUCE),
    "0.11.2": Tried("2026-11-28", "equal numbers wrong", NO_REDUCE),
}


@functools.cache
def jaxlib() -> str:
    """The version that is installed, empty without any; JAX is not imported for it."""
    import importlib.metadata  # It takes a while, and who asks for help needs none.

    try:
        return importlib.metadata.version("jaxlib")
    except importlib.metadata.PackageNotFoundError:
        return ""


def needed() -> str:
    """The flag for the jaxlib that is installed; empty where it was not tried.

    A flag that a version does not know ends the process, so that none is given to a
    version on suspicion.
    """
    tried = TRIED.get(jaxlib())
    return tried.flag if tried else ""


def joined(*flags: str) -> str:
    """Flags in one line, of which XLA takes the later one where one is there twice.

    Args:
      flags: each as in ``XLA_FLAGS``: flags, or the path of a file of them, beside
        which XLA allows no flag. A path that cannot be read is returned alone: XLA
        ends the process, and names it.
    """
    words: list[str] = []
    for text in flags:
        parsed = _words(text)
        if parsed is None:
            return text
        words += parsed
    return " ".join(words)


def merged(flags: str) -> str:
    """Flags with the needed one beside them; a value that they give it is kept.

    Args:
      flags: as in ``XLA_FLAGS``: flags, or the path of a file of them.
    """
    flag = needed()
    return joined(flags, flag) if flag and not _values(flags) else flags


# A value in quotes may hold spaces.
_WORD = re.compile(r"""\s*(-[\w-]*=(["'])(?:\\.|(?!\2).)*(?:\2|$)|-\S*)""", re.DOTALL)


def _words(flags: str) -> list[str] | None:
    """The flags one by one, of a file too; None where that cannot be read.

    As XLA does, it stops at the first word that is no flag: what follows has no effect.
    """
    text = flags.lstrip()
    if text and not text.startswith("-"):
        try:
            with open(flags, "rb") as file:
                text = os.fsdecode(file.read())
        except OSError:
            return None
    words, end = [], 0
    while match := _WORD.match(text, end):
        words.append(match[1])
        end = match.end()
    return words


def _values(flags: str) -> list[str]:
    """The values that flags give to the needed flag, in their order."""
    pairs = (word.partition("=") for word in _words(flags) or ())
    return [value.strip("\"'") for name, _, value in pairs if name == f"--{_NAME}"]


def _avoids(values: list[str]) -> bool:
    """Whether sums are left out of what is fused, which is where the numbers go wrong.

    Values add up: signs add to the compiler's own list and take from it, and an empty
    one clears it. A list without signs was tried as well, and did not help.
    """
    avoided = False
    for item in (item for value in values for item in value.lower().split(",")):
        kind = item.strip().replace("library_fusion_type_", "")
        if kind in ("", "-reduce"):
            avoided = True
        elif kind == "+reduce" or kind[0] not in "+-":
            avoided = False
    return avoided


def missing() -> str:
    """The flag that this process needs and does not have, whatever value is there."""
    flag = needed()
    return flag if flag and not _avoids(_values(_set())) else ""


def _set() -> str:
    return os.environ.get(_VARIABLE, "")


def add() -> None:
    """Adds the flag that this version of jaxlib needs, beside those that are set.

    JAX reads flags when it first looks at its devices: this comes before. Too late, or
    where the user's own value of the flag does not help, it changes nothing, and warns.
    Child processes inherit what it sets.
    """
    if not missing():
        return
    if _started() or _values(_set()):
        warn()
    else:
        os.environ[_VARIABLE] = merged(_set())


def warn() -> None:
    """One line where the flag is missing, once in a process, with the way out."""
    global _warned
    if _warned or not (flag := missing()):
        return
    _warned = True
    way = "restart Python and first of all" if _started() else "first of all"
    if own := _values(_set()):
        way += f" have {flag} in {_VARIABLE}, whose own value {','.join(own)!r} is kept"
    else:
        way += f" call sws_jax.xla_flags.add(), or have {flag} in {_VARIABLE}"
    # Without a file and its line, of which Python would print a second one.
    warnings.warn_explicit(
        f"jaxlib {jaxlib()} gives wrong sums of products in some programs on a CPU: "
        f"{way}",
        RuntimeWarning,
        "sws_jax",
        0,
    )


_warned = False


def _started() -> bool:
    """Whether JAX has read its flags; it is not imported for the question."""
    return private.backends_are_initialized()
