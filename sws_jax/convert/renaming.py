"""Names of tensors as layouts know them, whatever programs put before or into them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

from sws_jax.convert import base, levit, regnet, relatives, tensors, vit
from sws_jax.convert.base import Layout
from sws_jax.errors import UserError
from sws_jax.specs import Spec

LAYOUTS: tuple[Layout, ...] = (*vit.LAYOUTS, *levit.LAYOUTS, *regnet.LAYOUTS)
# Base models of transformers leave out what stands before all names but the heads':
# names that tell one, and what that is.
_BASES = (
    (
        "vit.",
        r"embeddings\.cls_token",
        r"(encoder\.layer|layers)\.\d+\.layernorm_before",
    ),
    ("levit.", r"patch_embeddings\.embedding_layer_1\..*", r"encoder\.stages\.\d+\."),
    ("regnet.", r"embedder\.embedder\..*", r"encoder\.stages\.\d+\."),
)
_CHOICES = 4  # named in a sentence
_DISTILLED = "embeddings.distillation_token"


def deep(names: Iterable[str]) -> re.Match | None:
    """The first number in a name that is larger than any depth."""
    numbers = (re.search(r"(?<![0-9A-Za-z])\d{5,}(?![0-9A-Za-z])", n) for n in names)
    return next(filter(None, numbers), None)


def as_layout(
    tried: Layout, flat: base.Flat, size: tuple[int, int] | None
) -> tuple[Spec, base.Flat] | None:
    """The spec and the tensors that a layout makes of some, if they are of it."""
    try:
        prepared = tried.prepare(flat, size)
        shapes = {name: tuple(a.shape) for name, a in prepared.items()}
        spec = tried.recognise(shapes)
    except UserError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None  # shapes that nothing of this layout has
    return None if spec is None else (spec, prepared)


def _takes(tried: Layout, flat: base.Flat, size: tuple[int, int] | None) -> bool:
    """Whether a layout knows tensors, if only to say why they are not of it."""
    try:
        return as_layout(tried, flat, size) is not None
    except UserError:
        return True


def inside(flat: base.Flat) -> list[str]:
    """Under which names networks stand that are known here, at most a few."""
    known: list[str] = []
    for start in tensors.beginnings(flat):
        if any(start.startswith(one) for one in known):
            continue
        if re.split("[./]", start)[0] in relatives.MODELS:
            continue  # which have the names of another, and compute something else
        under = {n[len(start) :]: a for n, a in flat.items() if n.startswith(start)}
        if renamed(under).known:
            known.append(start)
    return [re.sub("[./]", ".", one).rstrip(".") for one in known[:_CHOICES]]


@dataclasses.dataclass(frozen=True)
class Renamed:
    """Tensors of a file under the names that layouts know.

    Attributes:
      flat: by those names.
      stripped: from before all names.
      removed: from inside them.
      added: before all names.
      old: the names before anything was added, by those that `stripped` was in front
        of.
      known: whether a layout takes them.
    """

    flat: base.Flat
    stripped: str
    removed: tuple[str, ...]
    added: str
    old: Mapping[str, str]
    known: bool

    def own(self, name: str) -> str:
        """What the file calls it."""
        plain = name.removeprefix(self.added)
        return self.old.get(plain, self.stripped + plain)


def renamed(
    flat: base.Flat, layout: str = "", size: tuple[int, int] | None = None
) -> Renamed:
    """Names without what programs put before and into all of them.

    What no list has is taken away only where a network is known without it.
    """
    plain, first = tensors.unwrapped(flat)
    plain, inner, removed = tensors.without_wrappers(plain)
    found: list[Renamed] = []
    for prefix, some in tensors.shared(plain):
        if found and re.split("[./]", prefix)[0] in relatives.MODELS:
            break  # whose names, without it, are those of what computes something else
        whole, added = _named_as_whole(some)
        old = {name: first + inner[prefix + name] for name in some}
        tried = [one for one in LAYOUTS if layout in ("", one.key)]
        known = not deep(whole) and any(_takes(one, whole, size) for one in tried)
        found.append(Renamed(whole, first + prefix, removed, added, old, known))
        if known:
            break
    return found[-1] if found[-1].known else found[0]


def _named_as_whole(flat: base.Flat) -> tuple[base.Flat, str]:
    """Tensors of a base model of transformers under the names of its whole models."""
    for prefix, *patterns in _BASES:
        if all(any(re.match(p, name) for name in flat) for p in patterns):
            if prefix == "vit." and _DISTILLED in flat:
                prefix = "deit."
            heads = re.compile(r"(cls_|distillation_)?classifier.*")
            return {
                k if heads.fullmatch(k) else prefix + k: a for k, a in flat.items()
            }, prefix
    return flat, ""
