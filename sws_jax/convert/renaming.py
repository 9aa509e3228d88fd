"""Names of tensors as layouts know them, whatever programs put before or into them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

from sws_jax.convert import base, levit, regnet, relatives, vit, wrappers
from sws_jax.convert.base import Layout
from sws_jax.errors import UserError
from sws_jax.specs import Foreign

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


@dataclasses.dataclass(frozen=True)
class Match:
    """The first layout that knows some tensors.

    Attributes:
      layout: the layout.
      spec: of the network that they are; None where they are of the layout, and of no
        network here.
      flat: the tensors as the entries of the layout name them.
      refusal: why there is no spec.
    """

    layout: Layout
    spec: Foreign | None
    flat: base.Flat
    refusal: str = ""


def match(
    flat: base.Flat, layout: str = "", size: tuple[int, int] | None = None
) -> Match | None:
    """The layout that tensors have; None where no layout knows them.

    Args:
      flat: tensors by name.
      layout: the key of the only one to try; default any.
      size: height and width of the images in pixels, where they are known.
    """
    if deep(flat):
        return None
    for tried in LAYOUTS:
        if layout not in ("", tried.key):
            continue
        try:
            normalised = tried.normalise(flat, size)
            shapes = {name: tuple(a.shape) for name, a in normalised.items()}
            spec = tried.recognise(shapes)
        except UserError as error:
            return Match(tried, None, flat, str(error))
        except (ArithmeticError, LookupError, TypeError, ValueError):
            continue  # Nothing of this layout has such shapes.
        if spec is not None:
            return Match(tried, spec, normalised)
    return None


def inside(flat: base.Flat) -> list[str]:
    """Under which names networks stand that are known here, at most a few."""
    known: list[str] = []
    for prefix in wrappers.beginnings(flat):
        if any(prefix.startswith(shorter) for shorter in known):
            continue
        if re.split("[./]", prefix)[0] in relatives.MODELS:
            continue  # They have the names of another model, and compute otherwise.
        below = {n[len(prefix) :]: a for n, a in flat.items() if n.startswith(prefix)}
        if renamed(below).match:
            known.append(prefix)
    return [re.sub("[./]", ".", prefix).rstrip(".") for prefix in known[:_CHOICES]]


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
      match: the layout that knows them, if any does.
    """

    flat: base.Flat
    stripped: str
    removed: tuple[str, ...]
    added: str
    old: Mapping[str, str]
    match: Match | None

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
    plain, first = wrappers.unwrapped(flat)
    plain, inner, removed = wrappers.without_wrappers(plain)
    attempts: list[Renamed] = []
    for prefix, stripped in wrappers.shared(plain):
        if attempts and re.split("[./]", prefix)[0] in relatives.MODELS:
            break  # Without it these would be the names of what computes otherwise.
        whole, added = _named_as_whole(stripped)
        old = {name: first + inner[prefix + name] for name in stripped}
        known = match(whole, layout, size)
        attempts.append(Renamed(whole, first + prefix, removed, added, old, known))
        if known:
            return attempts[-1]
    return attempts[0]


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
