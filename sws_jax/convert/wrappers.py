"""What programs put before and into the names of tensors."""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

# What programs put before every name of what they save.
_WRAPPERS = (
    *("module", "_orig_mod", "_forward_module", "model", "net", "network", "backbone"),
    *("encoder", "teacher", "student", "params", "opt", "target", "state_dict"),
    *("ema_model", "ema", "model_ema", "online_network", "target_encoder"),
    *("_fsdp_wrapped_module", "_checkpoint_wrapped_module"),
)
# What torch puts inside names, wherever a module was compiled or wrapped.
_INNER = re.compile(
    r"(?<![^./])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)[./]"
)
# Of what a network may stand under: parts of its name, names that have it, and how many
# of such are looked at.
_DEEPEST, _FEWEST, _MOST = 3, 8, 64
# Counts that training keeps without the prefix that all other names have.
_COUNTERS = re.compile(r"n_averaged|num_updates|num_batches_tracked|initted|step|epoch")


def unwrapped(flat: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    """Tensors without what programs put before all their names, and what that was.

    ``module._orig_mod.`` and the like, of any order and number, only where every tensor
    but a counter has them.
    """
    prefix = ""
    counters = [name for name in flat if _COUNTERS.fullmatch(name)]
    names = [name for name in flat if name not in counters]
    while names:
        first = re.match(r"(\w+)[./]", names[0][len(prefix) :])
        if not first or first[1] not in _WRAPPERS:
            break
        if not all(name.startswith(prefix + first[0]) for name in names):
            break
        prefix += first[0]
    if not prefix:
        return dict(flat), ""
    return {name[len(prefix) :]: flat[name] for name in names}, prefix


def without_wrappers(
    flat: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, str], tuple[str, ...]]:
    """Tensors without what torch puts inside their names, if they stay apart.

    Returns:
      The tensors; the name that each had, by its new one; and what was removed.
    """
    old = {_INNER.sub("", name): name for name in flat}
    if len(old) < len(flat):
        return dict(flat), {name: name for name in flat}, ()
    removed = dict.fromkeys(m[0] for name in flat for m in _INNER.finditer(name))
    return {new: flat[name] for new, name in old.items()}, old, tuple(removed)


def shared(
    flat: Mapping[str, np.ndarray],
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """What stands before all names but those of counters, and the tensors without it:
    nothing, the first part of the names, the first two and so on."""
    yield "", dict(flat)
    names = [name for name in flat if not _COUNTERS.fullmatch(name)]
    prefix = ""
    while names and (first := re.match(r"[^./]+[./]", names[0][len(prefix) :])):
        prefix += first[0]
        if not all(n.startswith(prefix) and len(n) > len(prefix) for n in names):
            return
        yield prefix, {name[len(prefix) :]: flat[name] for name in names}


def beginnings(names: Iterable[str]) -> list[str]:
    """What stands before several of the names and may be what a network is called, the
    shortest first: up to three parts."""
    counts: collections.Counter[str] = collections.Counter()
    for name in names:
        dots = itertools.islice(re.finditer(r"[./]", name), _DEEPEST)
        counts.update(name[: dot.end()] for dot in dots)
    several = [prefix for prefix, n in counts.most_common(_MOST) if n >= _FEWEST]
    return sorted(several, key=lambda prefix: (len(re.findall("[./]", prefix)), prefix))
