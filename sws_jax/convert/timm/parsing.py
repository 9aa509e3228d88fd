"""timm's ``config.json`` in our terms, before it is compared with any tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sws_jax.arguments import shown
from sws_jax.convert import keys
from sws_jax.convert.base import Layout
from sws_jax.convert.timm import catalogue
from sws_jax.convert.timm.sizes import QUANTISED
from sws_jax.convert.timm.tables import ARGUMENTS, PRETRAINED, TOP, USUAL, pooling
from sws_jax.errors import UserError

# Arguments for which null is a value of timm's own: what holds where no name is.
_NULLS = (
    "act_layer",
    "attn_act_layer",
    "embed_norm_layer",
    "fc_norm",
    "init_values",
    "norm_layer",
)
_AT_TOP = {row.name for row in TOP}


@dataclasses.dataclass(frozen=True)
class Config:
    """A parsed ``config.json``.

    Attributes:
      path: of the file, for messages.
      family: of the network, as the tables call it.
      top: the values of its own keys.
      pretrained: those of its ``pretrained_cfg``, which may stand at its top.
      architecture: the name of the network.
      is_named: whether timm has that name.
      written: its ``model_args`` as they stand there, null included.
      stated: those that are not null, as they are parsed.
      implied: what the name implies of the others, as it is parsed.
      arguments: what timm takes for each argument, as it is written: from
        ``model_args``, the name, and what is usual in the family.
      notes: what is worth saying of it, a sentence each.
    """

    path: str
    family: str
    top: Mapping[str, Any]
    pretrained: Mapping[str, Any]
    architecture: str
    is_named: bool
    written: Mapping[str, Any]
    stated: Mapping[str, Any]
    implied: Mapping[str, Any]
    arguments: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def known(self) -> dict[str, Any]:
        """Arguments that the file states or its name implies, as they are parsed."""
        return {**self.implied, **self.stated}

    def where(self, argument: str) -> str:
        """What says an argument, for messages."""
        numbers = [name for name in QUANTISED if name in self.stated]
        if argument in ("widths", "depths") and numbers:
            return f"{argument} (which follow from model_args.{numbers[0]} and such)"
        of_top = self.arguments.get(argument) == self.top.get(argument)
        if argument == "global_pool" and of_top and not self.is_named:
            return f"model_args.{argument}" if argument in self.written else argument
        if argument in self.written or not self.is_named:
            return f"model_args.{argument}"
        return f"{argument} of its architecture {shown(self.architecture)}"


def parsed(path: str, config: Mapping[str, Any], family: str, layout: Layout) -> Config:
    """Parses a ``config.json`` of timm.

    Args:
      path: of the file, for messages.
      config: its content.
      family: of the network that the tensors beside it show.
      layout: of those tensors.

    Raises:
      UserError: it is of another family, or says what cannot be done here.
    """
    top, pretrained, notes = _outer(path, config)
    written = top.get("model_args", {})
    not_null = {name: value for name, value in written.items() if value is not None}
    name = top.get("architecture", pretrained.get("architecture", "")).split(".")[0]
    row = _implied(path, name, family, layout)
    stated, more = keys.taken(path, ARGUMENTS[family], not_null, within="model_args.")
    notes += more
    if "norm_layer" in written:
        row.pop("norm_eps", None)  # It comes with the norm of a name.
    is_named = bool(row)
    # timm takes a null of some arguments in place of what the name implies.
    decided = {*not_null, *(k for k in written if k in _NULLS)}
    row = {k: value for k, value in row.items() if k not in decided}
    parsable = {key.name for key in ARGUMENTS[family]}
    implied, _ = keys.taken(
        path,
        ARGUMENTS[family],
        {argument: value for argument, value in row.items() if argument in parsable},
        within=f"architecture is {shown(name)}, whose ",
    )
    implied |= {k: value for k, value in row.items() if k not in parsable}
    arguments = {**USUAL[family], **row, **not_null}
    if not is_named:
        notes += (_unknown(path, name, family),)
    wrapper = top.get("model_type", "timm_wrapper")
    if wrapper != "timm_wrapper":
        notes += (
            f"{path}: model_type is {shown(wrapper)}, and architecture is there too: "
            f"the file is taken as timm's",
        )
    arguments["global_pool"] = _pooled(path, family, top, not_null, is_named, arguments)
    return Config(
        path,
        family,
        top=top,
        pretrained=pretrained,
        architecture=name,
        is_named=is_named,
        written=written,
        stated=stated,
        implied=implied,
        arguments=arguments,
        notes=notes,
    )


def _outer(
    path: str, config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """The values at the top of a file and of its ``pretrained_cfg``, and notes.

    Where there is no ``pretrained_cfg``, both are the same mapping.
    """
    if "pretrained_cfg" not in config:
        table = (*TOP, *(row for row in PRETRAINED if row.name not in _AT_TOP))
        values, notes = keys.taken(path, table, config)
        return values, values, notes
    top, notes = keys.taken(path, TOP, config)
    pretrained, more = keys.taken(
        path, PRETRAINED, top["pretrained_cfg"], within="pretrained_cfg."
    )
    return top, pretrained, (*notes, *more)


def _implied(path: str, name: str, family: str, layout: Layout) -> dict[str, Any]:
    """What a name implies; empty where it is no name of timm's.

    Raises:
      UserError: it is of another family.
    """
    row = dict(catalogue.names().get(name, {}))
    if row and row.pop("family") != family:
        keys.agree(path, [("architecture", name, layout.name)])
    others = catalogue.others().items()
    module = next((module for module, names in others if name in names), "")
    if module:
        raise UserError(
            f"{path} is of another network than the tensors beside it: architecture is "
            f"{name!r}, which timm has in its module {module}, and theirs is a "
            f"{layout.name}; put their own there, or move this one away"
        )
    return row


def _unknown(path: str, name: str, family: str) -> str:
    """The note on an architecture that is in no table."""
    usual = keys.UNSEEN.get(family, "exact GELU, epsilon 1e-06")
    return (
        f"{path}: architecture {shown(name)} is no name known here (of timm "
        f"{catalogue.version()}), so what it says nothing of is taken as usual: {usual}"
    )


def _pooled(
    path: str,
    family: str,
    top: Mapping[str, Any],
    not_null: Mapping[str, Any],
    is_named: bool,
    arguments: Mapping[str, Any],
) -> str:
    """How the network pools, by the key at the top where nothing else says it.

    Raises:
      UserError: that key and the others disagree.
    """
    at_top, by_arguments = top.get("global_pool"), arguments["global_pool"]
    if at_top is None:
        return by_arguments
    if not is_named and "global_pool" not in not_null:
        keys.taken(path, ARGUMENTS[family], {"global_pool": at_top})
        return at_top
    if pooling(at_top) != pooling(by_arguments):
        raise UserError(
            f"{path}: global_pool is {shown(at_top)}, and by its other keys the "
            f"network pools by {shown(by_arguments)}: say which in model_args"
        )
    return by_arguments
