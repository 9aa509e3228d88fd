"""The phase of a method that a run trains, found again from the run's config alone.

Where the usual fields of a config describe all of a phase, its run is one like any
other: that of the Aux-Net of SWS has ``model.stages``, and ``phase.method`` is empty.
Any other phase is named by ``phase.method`` and ``phase.name``, and is asked of the
method again whenever something must be known of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
from flax import linen as nn

from sws_jax.errors import UserError
from sws_jax.jobs import model_fields
from sws_jax.methods import base, learngenes
from sws_jax.methods.base import (
    FromGene,
    FromNetwork,
    FromRun,
    Method,
    Phase,
    Request,
    Trained,
)
from sws_jax.methods.objectives import Loss, Objective
from sws_jax.models import networks
from sws_jax.models.description import Description
from sws_jax.models.networks import Network
from sws_jax.specs import AuxViTSpec, Spec, ViTSpec
from sws_jax.storage.names import RUN


def request(config: ml_collections.ConfigDict) -> Request:
    """What a config asks of a method."""
    return Request(
        stages=tuple(config.model.stages),
        profile=config.profile,
        loss=Loss(**config.loss),
    )


def net(
    config: ml_collections.ConfigDict, input_and_head: dict[str, Any] | None
) -> ViTSpec:
    """The network that a method is asked with.

    Args:
      config: of a run or of a job.
      input_and_head: image_size, channels and num_classes; None puts placeholders
        there, for a caller whose question does not depend on them.
    """
    return model_fields.plain_network(config, input_and_head or _placeholder(config))


def of_method(
    config: ml_collections.ConfigDict,
    method: Method,
    depths: tuple[int, ...],
    input_and_head: dict[str, Any] | None = None,
) -> tuple[Phase, ...]:
    """The phases of a method, for the network of a config.

    Args:
      config: of a run or of a job.
      method: whose they are.
      depths: of the descendants.
      input_and_head: as in `net`.

    Raises:
      UserError: two phases have one name, or a step cannot be compiled for an
        objective.
    """
    phases = method.phases(net(config, input_and_head), request(config), depths)
    for phase in phases:
        if [other.name for other in phases].count(phase.name) > 1:
            raise UserError(f"{method.name} has two phases named {phase.name}")
        try:
            hash(phase.objective)
        except TypeError as error:
            raise UserError(
                f"the objective of phase {phase.name} of {method.name} is not hashable "
                f"({error}): make it a frozen dataclass whose fields are numbers, text "
                f"or tuples of them"
            ) from None
    return phases


def find(
    config: ml_collections.ConfigDict, input_and_head: dict[str, Any] | None = None
) -> Phase | None:
    """The phase that a run trains; None for a run that its fields alone describe.

    Args:
      config: of the run.
      input_and_head: as in `of_method`.

    Raises:
      UserError: there is no such method, or no such phase of it.
    """
    name = config.phase.name
    if not config.phase.method:
        if name:
            raise UserError(f"phase.name={name} needs phase.method, whose phase it is")
        return None
    phases = _all(config, input_and_head)
    for phase in phases:
        if phase.name == name:
            return phase
    raise UserError(
        f"phase.name {name!r} is none of {config.phase.method}'s phases, which are "
        f"{', '.join(phase.name for phase in phases) or 'none'}"
    )


def _all(config, input_and_head: dict[str, Any] | None = None) -> tuple[Phase, ...]:
    """All phases of a run's method, as far as the run knows them."""
    method = learngenes.find_method(config.phase.method)
    depths = (config.phase.depth,) if config.phase.depth else ()
    return of_method(config, method, depths, input_and_head)


def earlier(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Names of the phases that a run's method has trained before it."""
    names: list[str] = []
    for phase in _all(config) if config.phase.method else ():
        if phase.name == config.phase.name:
            break
        names.append(phase.name)
    return tuple(names)


def leaves_learngene(config: ml_collections.ConfigDict) -> bool:
    """Whether a run trains the last phase that its method needs for a learngene."""
    if not config.phase.method:
        return False
    return last(_all(config)) == config.phase.name


def last(phases: Sequence[Phase]) -> str:
    """The name of the phase that leaves the learngene: the last that all depths share.

    Empty where there is none.
    """
    return next((p.name for p in reversed(phases) if p.depth is None), "")


def needs(phase: Phase, last: str) -> tuple[str, ...]:
    """Names of the phases that the training of a phase needs; `base.ANCESTOR` too.

    Args:
      phase: of a method.
      last: name of the phase that leaves the method's learngene.
    """
    start = phase.start
    names = [phase.teacher] if phase.teacher and phase.objective.needs_teacher else []
    if isinstance(start, FromRun):
        names.append(start.phase)
    elif isinstance(start, base.Made):
        names += start.after
    elif isinstance(start, FromGene) and not start.path:
        names.append(last)
    elif isinstance(start, FromGene | FromNetwork):
        names += runs_named(start.path)
    return tuple(names)


def runs_named(path: str) -> tuple[str, ...]:
    """The run of the job that a path names, if it names one."""
    return (path.removeprefix(RUN),) if path.startswith(RUN) else ()


def objective(config: ml_collections.ConfigDict) -> Objective:
    """What a run minimises."""
    phase = find(config)
    return Loss(**config.loss) if phase is None else phase.objective


def abstract_trained(
    config: ml_collections.ConfigDict,
    spec: Spec,
    about: Description,
    teacher: Spec | None,
) -> Trained | None:
    """The shapes of what a run leaves to later phases; None where they are not known.

    Args:
      config: of the run.
      spec: of its network.
      about: of its network.
      teacher: of its teacher, as far as it is known.
    """
    minimised = objective(config)
    if teacher is None and minimised.needs_teacher and not base.is_usual(minimised):
        return None  # Its own parameters may depend on the teacher.
    own = jax.eval_shape(
        lambda key: nn.meta.unbox(base.initial_own(minimised, key, spec, teacher)),
        jax.eval_shape(jax.random.key, 0),  # A real key would start JAX.
    )
    return Trained(Network(spec, networks.abstract_params(spec), about), own)


def set_fields(
    config: ml_collections.ConfigDict,
    method: Method,
    phase: Phase,
    ancestor: str,
    *,
    last: str,
) -> None:
    """Sets the fields of a run that trains a phase.

    Args:
      config: changed in place: a run's, with the job's own fields.
      method: whose phase it is.
      phase: to be trained.
      ancestor: path of the ancestor.
      last: name of the phase that leaves the method's learngene, of `last`.

    Raises:
      UserError: the phase starts from a learngene that no earlier phase leaves.
    """
    if base.is_usual(phase.objective):
        names = ("kind", "alpha", "tau", "reduction")
        config.loss.update({name: getattr(phase.objective, name) for name in names})
    config.teacher.path = _path(phase.teacher, ancestor)
    if isinstance(phase.start, base.Made) and base.ANCESTOR in phase.start.after:
        config.phase.ancestor = ancestor
    _set_start(config, phase, ancestor, last)
    _set_length(config, phase)
    if _fits_fields(config, phase) and _leaves_by_itself(method, phase, last):
        _set_network(config, phase)
    else:  # The method is asked again, with the job's own network and stages.
        config.phase.update(method=method.name, name=phase.name, depth=phase.depth or 0)


def _leaves_by_itself(method: Method, phase: Phase, last: str) -> bool:
    """Whether a run that knows its network alone leaves what the phase has to leave."""
    if phase.name == last:  # A learngene, which follows from the network's kind.
        return learngenes.method_of(phase.spec) == method.name
    return isinstance(phase.spec, ViTSpec)  # Of an Aux-Net a learngene would be taken.


def path_of(config: ml_collections.ConfigDict, name: str) -> str:
    """The path of an earlier phase's network, or of the ancestor's.

    Args:
      config: of the run that needs it.
      name: of the phase.
    """
    return _path(name, config.phase.ancestor)


def _path(name: str, ancestor: str) -> str:
    """The path of a phase's network; empty for none."""
    if name == base.ANCESTOR:
        return ancestor
    return f"{RUN}{name}" if name else ""


def _set_start(config, phase: Phase, ancestor: str, last: str) -> None:
    """Sets where the first weights come from; no field describes a `Made` start."""
    start = phase.start
    if isinstance(start, FromRun):
        config.init.network = _path(start.phase, ancestor)
    elif isinstance(start, FromNetwork):
        config.init.network = start.path
    elif isinstance(start, FromGene):
        if not start.path and last in ("", phase.name):
            raise UserError(
                f"phase {phase.name} starts from a learngene of its own method, which "
                f"no phase leaves before it: name a file as path"
            )
        config.init.learngene = start.path or f"{RUN}{last}"
        config.init.plan = tuple(start.plan or ())


def _set_length(config, phase: Phase) -> None:
    """Sets the length of the schedule and its peak, where the phase has them."""
    if phase.length is None:
        return
    epochs, rate, warmup = phase.length
    if warmup is None:
        warmup = min(config.schedule.warmup_epochs, epochs)
    config.schedule.update(total_epochs=float(epochs), warmup_epochs=float(warmup))
    if rate is not None:
        config.schedule.rate = float(rate)


def _fits_fields(config, phase: Phase) -> bool:
    """Whether the usual fields of a config describe all of a phase."""
    if phase.variants or not isinstance(phase.start, base.Seed):
        return False  # A network of a file may be another than the phase's.
    has_fields = isinstance(phase.spec, ViTSpec | AuxViTSpec)
    return has_fields and phase.objective == Loss(**config.loss)


def _set_network(config, phase: Phase) -> None:
    """Sets the fields of the network, where they describe another."""
    assert isinstance(phase.spec, ViTSpec | AuxViTSpec)  # See `_fits_fields`.
    if model_fields.network_spec(config, _placeholder(config)) != phase.spec:
        config.model.update(model_fields.fields_of(phase.spec))


def _placeholder(config) -> dict[str, Any]:
    """An image size, channels and classes, where nothing depends on them."""
    patch = config.model.patch_size
    return dict(image_size=(patch, patch), channels=1, num_classes=1)
