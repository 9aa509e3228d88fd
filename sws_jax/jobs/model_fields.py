"""The fields of a config's ``model``, and the network that they make or follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import ml_collections

from sws_jax.errors import UserError
from sws_jax.jobs import recipes
from sws_jax.specs import AuxViTSpec, Trained, ViTSpec

# Fields of `model` that a run decides, whatever file it starts from.
_NOT_FROM_FILE = ("drop_path",)


def insisted(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Fields of `model` that a file must agree with.

    Empty for a config of older software, and for a group of changes without the list.
    """
    return tuple(config.init.get("insist", ()))


def network_spec(config, input_and_head: dict[str, Any]) -> Trained:
    """The network of `config.model`.

    Args:
      config: of the run.
      input_and_head: image_size, channels and num_classes.
    """
    fields = dict(config.model)
    stages = tuple(fields.pop("stages"))
    if stages:
        fields["depth"] = sum(stages) if min(stages) > 0 else len(stages)
    net = ViTSpec(**fields, **input_and_head)
    return AuxViTSpec(net, stages) if stages else net


def plain_network(config, input_and_head: dict[str, Any]) -> ViTSpec:
    """The network of `config.model`, sharing nothing; see `network_spec`."""
    fields = {name: value for name, value in config.model.items() if name != "stages"}
    return ViTSpec(**fields, **input_and_head)


def fields_of(spec: Trained) -> dict[str, Any]:
    """The fields of a config's `model` that make this network.

    Of a network that no fields make: those of its last part, and the whole's depth.
    """
    own = {field.name for field in dataclasses.fields(ViTSpec)}
    names = own & set(recipes.run().model)
    fields = {name: getattr(spec.tail, name) for name in names}
    stages = spec.stages if isinstance(spec, AuxViTSpec) else ()
    return {**fields, "depth": spec.depth, "stages": stages}


def check_init(config) -> None:
    """Refuses a `model` and an `init` of which one has no meaning beside the other.

    Raises:
      UserError: naming the fields.
    """
    if config.init.learngene and config.init.network:
        raise UserError("init takes a learngene or a network, not both")
    # A method may have asked for stages, which belong to another phase of its.
    if config.init.learngene and config.model.stages and not config.phase.method:
        raise UserError(
            "a learngene initialises descendants, which share nothing: leave "
            "model.stages empty"
        )


def with_network(
    config: ml_collections.ConfigDict, spec: Trained
) -> ml_collections.ConfigDict:
    """The config with the network that the run really has, where fields can say it."""
    copy = config.copy_and_resolve_references().unlock()
    if isinstance(spec, ViTSpec | AuxViTSpec) and not config.phase.method:
        copy.model.update(fields_of(spec))
    return copy


def undecided(config: ml_collections.ConfigDict, *, insist: bool = True) -> set[str]:
    """Fields of `model` that the file or the stages decide, and not the config.

    Args:
      config: of a run or of a job.
      insist: leave out those that the file must agree with.
    """
    names = set(config.model) - set(_NOT_FROM_FILE)
    if insist:
        names -= set(insisted(config))
    if config.init.network:
        return names
    if config.init.learngene:
        by_depth = not (config.init.plan or config.init.allotment)
        return names - ({"depth"} if by_depth else set())
    return {"depth"} if config.model.stages else set()


def insisted_differences(config, spec: Trained) -> list[tuple[str, str, str]]:
    """Fields in ``init.insist`` that a network has otherwise: (name, asked, has)."""
    fields, rows = fields_of(spec), []
    for name in sorted(set(insisted(config)) - set(_NOT_FROM_FILE)):
        wanted = config.model[name]
        wanted = tuple(wanted) if name == "stages" else wanted
        if wanted != fields[name]:
            rows.append((name, _shown(wanted), _shown(fields[name])))
    return rows


def check_insisted(
    config,
    spec: Trained,
    path: str,
    on_difference: Callable[[str], None] | None,
) -> None:
    """Compares a network with what was asked for by name.

    Args:
      config: of the run.
      spec: of its network.
      path: of the file that the network comes from; empty for one of a seed.
      on_difference: as in `sws_jax.jobs.start.answer`.

    Raises:
      UserError: naming the field.
    """
    init = config.init
    for name, asked, has in insisted_differences(config, spec):
        where, remedy = path, "take a file that has it"
        if not path:  # Without a file, only `stages` can contradict.
            where, remedy = "model.stages", "change one"
        elif name == "depth" and init.learngene:
            where, remedy = f"init.{'plan' if init.plan else 'allotment'}", "change one"
        if on_difference is None:
            raise UserError(
                f"model.{name} is {asked} and {where} has {has}: leave model.{name} "
                f"out, or {remedy}"
            )
        on_difference(
            f"{config.name}: goes on as it began: model.{name} is {has}, as in "
            f"{where}, where the config says {asked}"
        )


def _shown(value: Any) -> str:
    """A field of `model`, as an argument writes it."""
    if isinstance(value, tuple):
        return "-".join(map(str, value)) or "empty"
    return f"{value}"
