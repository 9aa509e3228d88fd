"""Which network of a checkpoint is taken, of those that it holds."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sws_jax.errors import UserError
from sws_jax.runtime import words

_SHOWN = 6  # names in a sentence
IN_MEMORY = "what is in memory"  # in messages, where there is no path
# Where training programs put a network's tensors inside what they save; the first that
# is there is taken, and a note names the others. DINO evaluates the teacher.
_PARTS = (
    *("model", "state_dict", "params", "model_state_dict", "model_state", "module"),
    *("net", "network", "weights", "target", "model_ema", "state_dict_ema"),
    *("ema_state_dict", "params_ema", "ema", "ema_model", "teacher", "student"),
    *("backbone", "encoder", "target_encoder"),
)
# What else they save that holds tensors, and no network.
_OTHERS = re.compile(
    r"(opt|optim\w*|opt_state|state|lr_sched\w*|\w*scheduler\w*|\w*scaler|rng\w*|args)"
)


def asked(where: str, part: str = "") -> str:
    """How a part is chosen: on the command line, or in memory."""
    if where == IN_MEMORY:
        return f"part={part!r}" if part else "part="
    return f"--part {part}".rstrip()


@dataclasses.dataclass(frozen=True)
class _Level:
    """What stands at one level of a checkpoint.

    Attributes:
      tree: all of it, by name.
      top: its tensors.
      inside: names of what holds tensors below it.
      options: those of them that may be a network.
      weighs: whether one of the tensors is more than a single number.
    """

    tree: Mapping[str, Any]
    top: dict[str, Any]
    inside: list[str]
    options: list[str]
    weighs: bool


def _level(tree: Any) -> _Level:
    tree = _grouped(by_name(tree))
    top = {name: value for name, value in tree.items() if _is_tensor(value)}
    inside = [name for name, value in tree.items() if _has_tensors(value)]
    return _Level(
        tree,
        top,
        inside,
        options=[name for name in inside if _may_be_network(name, tree[name])],
        weighs=any(len(getattr(value, "shape", ())) for value in top.values()),
    )


def chosen(
    where: str, checkpoint: Mapping[Any, Any], part: str, *, nested: bool = False
) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """The tensors of one network of a checkpoint, its name, and a note on the others.

    Args:
      where: the checkpoint is, for messages.
      checkpoint: its content, by name.
      part: the name that was asked for, see `tensors.read`; empty for the usual one.
      nested: whether tensors may be nested, as in a Flax tree: what has none of the
        usual parts and no state_dict is then one network.

    Raises:
      UserError: there is no such part, or there are several and none is usual.
    """
    level, at, left = _level(checkpoint), "", []
    steps = [step for step in re.split(r"[./]", part) if step]
    while True:
        if steps and steps[0] not in level.inside:
            return _under_prefix(where, at, level, steps), part, ()
        if steps:
            pick = steps.pop(0)
        elif part == ".":
            pick = ""
        else:
            pick, level = _usual(where, at, level, part, nested)
        if pick or not level.options or level.top:
            left += [at + name for name in level.inside if name != pick]
            if pick and level.weighs:
                top = f"{len(level.top)} tensors at its top"
                left.append(f"{top} ({asked(where, '.')})")
        if not pick:
            break
        at, level = f"{at}{pick}.", _level(level.tree[pick])
    _check_tensors(where, at, level)
    name = at.rstrip(".")
    if not left or part:
        return level.top, name, ()
    note = (
        f"took {name or 'the tensors at the top'} of {where}; left "
        f"{words.few(left, _SHOWN)}: "
        f"choose with {asked(where)}"
    )
    return level.top, name, (note,)


def _under_prefix(
    where: str, at: str, level: _Level, steps: Sequence[str]
) -> dict[str, Any]:
    """The tensors whose names begin with a part that was asked for.

    Raises:
      UserError: there are none.
    """
    prefix = re.compile(r"[./]".join(map(re.escape, steps)) + r"[./]")
    if under := {
        name[match.end() :]: value
        for name, value in level.top.items()
        if (match := prefix.match(name))
    }:
        return under
    there = ", ".join(at + name for name in level.inside) or "no parts"
    raise UserError(
        f"{where} has no part {at + steps[0]}: it has {there} ({asked(where)})"
    )


def _usual(
    where: str, at: str, level: _Level, part: str, nested: bool
) -> tuple[str, _Level]:
    """The part that is taken where none is asked for, and the level as it is then seen.

    The name is empty where the tensors of the level itself are taken.

    Raises:
      UserError: several parts may be a network, and none is usual.
    """
    tree, options = level.tree, level.options
    known = [name for name in _PARTS if name in options]
    flat = [name for name in options if _is_flat(tree[name])]
    if nested and not known and flat:
        level = dataclasses.replace(level, options=flat)
    elif nested and not known:
        level = dataclasses.replace(
            level,
            top={k: v for k, v in tree.items() if k in options or k in level.top},
            inside=[name for name in level.inside if name not in options],
            options=[],
            weighs=False,
        )
    if part and level.top and not nested:
        return "", dataclasses.replace(level, options=[], weighs=False)
    if known:
        return known[0], level
    if level.weighs or not level.options:
        return "", level
    if len(level.options) > 1:
        several = ", ".join(at + name for name in level.options)
        raise UserError(
            f"{where} holds several parts, {several}: choose one with {asked(where)}"
        )
    return level.options[0], level


def _check_tensors(where: str, at: str, level: _Level) -> None:
    """Refuses a level without tensors by name, and lists of numbers in place of one."""
    if not level.top and level.inside:
        raise UserError(
            f"{where} holds no tensors by name that are known as a network's: it has "
            f"{words.few([at + name for name in level.inside], _SHOWN)}, "
            f"{_how(where, at, level.tree, level.inside)}"
        )
    for name, value in level.tree.items():
        if re.search("[./]", name) and is_numbers(value):
            raise UserError(
                f"{where}: {name} is a {type(value).__name__}, and no array: make it "
                f"one (numpy.asarray)"
            )


def _how(where: str, at: str, tree: Mapping[str, Any], inside: Sequence[str]) -> str:
    """How one of the parts that hold tensors is chosen, the first that has names."""
    for name in inside:
        part = tree[name]
        if isinstance(part, Mapping):
            return f"of which one is chosen with {asked(where, at + name)}"
        places = [n for n, one in enumerate(part) if isinstance(one, Mapping)]
        if places:
            like = f"{at}{name}.{places[0]}"
            return f"of which one is chosen with {asked(where, like)}"
    return "and tensors in a list have no names: save them by name"


def by_name(tree: Any) -> dict[str, Any]:
    """A mapping whose keys are text: of a list, places; of Flax's flat ones, joined."""
    pairs = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    return {
        "/".join(map(str, k)) if isinstance(k, tuple) else str(k): v for k, v in pairs
    }


def _grouped(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Flat names like ``teacher.a`` and ``student.a`` as two parts; else the same."""
    split = [re.match(r"(\w+)[./](.+)", str(name)) for name in tree]
    firsts = {m[1] for m in split if m}
    flat = all(split) and all(map(_is_tensor, tree.values()))
    # Vision Transformer's checkpoints have their network as opt/target.
    both = firsts == {"opt"} and not all(n.startswith("opt/target/") for n in tree)
    if not flat or (len(firsts) < 2 and not both):
        return tree
    networks = firsts & set(_PARTS)
    others = {first for first in firsts if _OTHERS.fullmatch(first)}
    if firsts - networks - others or not (networks or both):
        return tree
    parts: dict[str, dict[str, Any]] = {}
    for match, value in zip(split, tree.values(), strict=True):
        assert match
        parts.setdefault(match[1], {})[match[2]] = value
    return parts


def _may_be_network(name: str, inside: Any) -> bool:
    if not isinstance(inside, Mapping):
        return False  # A list is taken only where it is asked for.
    if name == "opt" and any(str(key).startswith("target") for key in inside):
        return True
    return not _OTHERS.fullmatch(name)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _has_tensors(value: Any) -> bool:
    """Whether a part of a checkpoint has tensors, under names or in a list."""
    if isinstance(value, Mapping):
        return any(
            (isinstance(k, str | tuple) and _is_tensor(v)) or _has_tensors(v)
            for k, v in value.items()
        )
    return isinstance(value, list | tuple) and any(
        (_is_tensor(v) and len(v.shape)) or _has_tensors(v) for v in value
    )


def _is_flat(part: Mapping[str, Any]) -> bool:
    """Whether it is a state_dict: tensors alone, under names with dots."""
    tensors = {str(k): v for k, v in part.items() if _is_tensor(v)}
    return any("." in name for name in tensors) and not any(
        map(_has_tensors, part.values())
    )


def is_numbers(value: Any) -> bool:
    """Whether it is a list of numbers, or of such lists."""
    if not isinstance(value, list | tuple) or not value:
        return False
    return all(isinstance(v, int | float) or is_numbers(v) for v in value)
