"""A job as a plain list of runs, made from its config alone.

``single``      one run, as the config says.
``descendants`` one learngene file, many depths, with the comparisons asked for.
``sws``         ancestor (if no teacher is given), Aux-Net, then as above.

A larger comparison is more rows in the list.
"""

from __future__ import annotations

import dataclasses
import itertools

import ml_collections

from sws_jax.errors import UserError
from sws_jax.jobs import check, model_fields, places, recipes
from sws_jax.training import roles
from sws_jax.training.roles import ANCESTOR, AUX


@dataclasses.dataclass(frozen=True)
class Run:
    """One row of a job.

    Attributes:
      name: also its directory in the work directory.
      role: in tables, of `sws_jax.training.roles`.
      config: as in `sws_jax.jobs.recipes.run`.
      after: names of the runs it needs.
      publishes: whether its learngene is copied to the work directory, where users
        look for it.
    """

    name: str
    role: str
    config: ml_collections.ConfigDict
    after: tuple[str, ...] = ()
    publishes: bool = False


def runs(config: ml_collections.ConfigDict) -> list[Run]:
    """The runs of a job, each after those it needs.

    Raises:
      UserError: an unknown job, comparison or depth.
    """
    check.check_job(config)
    builders = {"single": _single, "descendants": _descendants, "sws": _sws}
    return builders[config.job](config)


def _single(config) -> list[Run]:
    """One run, as the config says."""
    return [Run(config.name, roles.SINGLE, _run(config, config.name))]


def _sws(config) -> list[Run]:
    """An ancestor where no teacher is named, an Aux-Net, and its descendants."""
    rows = []
    teacher = config.teacher.path
    if not teacher:
        if "ancestor" not in config:
            raise UserError(
                "this config trains no ancestor: give its teacher as teacher=PATH, a "
                "weights file or the directory of a finished run"
            )
        rows.append(Run(ANCESTOR, ANCESTOR, _run(config, ANCESTOR, config.ancestor)))
        teacher = f"{places.RUN}{ANCESTOR}"
    aux = _run(config, AUX)
    aux.teacher.path = teacher
    needs = (ANCESTOR,) if rows else ()
    rows.append(Run(AUX, AUX, aux, needs, publishes=True))
    return rows + _compare(config, config.tune, f"{places.RUN}{AUX}", (AUX,))


def _descendants(config) -> list[Run]:
    """The descendants of a learngene's file, and what they are compared with."""
    if not config.init.learngene:
        raise UserError(
            "this config starts from a learngene: give its file as learngene=PATH"
        )
    return _compare(config, ml_collections.ConfigDict(), config.init.learngene, ())


def _compare(config, tune, learngene: str, needs: tuple[str, ...]) -> list[Run]:
    """Descendants of every depth, and what they are compared with.

    Args:
      config: of the job.
      tune: changes to its fields for the descendants.
      learngene: that these start from.
      needs: the runs that the descendants need.
    """
    compare = config.compare
    if not compare.depths:
        raise UserError("compare.depths is empty: name at least one depth")
    rows = []
    # A depth that is named twice is one row.
    depths = tuple(dict.fromkeys(compare.depths))
    for number, depth in itertools.product(range(compare.seeds), depths):
        if number and compare.level == "untuned":
            continue  # nothing in an expansion is random
        label = f"L{depth:02d}" + (f"-seed{number}" if number else "")
        if compare.level == "untuned":
            name, role = f"untuned-{label}", roles.UNTUNED
        else:
            name, role = f"des-{label}", roles.TUNED
        # What was asked of the Aux-Net by name was not asked of its descendants.
        descendant = _run(config, name, tune, insist=not needs)
        descendant.seed = config.seed + number
        descendant.model.depth = depth
        descendant.init.learngene = learngene
        if role == roles.UNTUNED:
            descendant.schedule.update(total_epochs=0.0, warmup_epochs=0.0)
        rows.append(Run(name, role, descendant, needs))
        if compare.level == "full":
            rows += _from_scratch(config, number, label, descendant)
    return rows


def _from_scratch(
    config, number: int, label: str, descendant: ml_collections.ConfigDict
) -> list[Run]:
    """Nets from scratch of a descendant's depth: trained as long as it, and longer.

    Args:
      config: of the job.
      number: of the seed, from 0.
      label: of depth and seed, for their names.
      descendant: the config that they are compared with.
    """
    short, long = descendant.schedule.total_epochs, float(config.compare.long_epochs)
    budgets = {roles.SCRATCH_SHORT: short, roles.SCRATCH_LONG: long}
    if f"{long:g}" == f"{short:g}":  # one row serves both
        del budgets[roles.SCRATCH_LONG]
    rows = []
    for role, epochs in budgets.items():
        name = f"scratch-{label}-{epochs:g}ep"
        scratch = _run(config, name, config.scratch)
        scratch.seed = config.seed + number
        scratch.model.update(depth=descendant.model.depth, stages=())
        recipes.last(scratch, epochs)
        rows.append(Run(name, role, scratch))
    return rows


def _run(
    config, name: str, changes=None, *, insist: bool = True
) -> ml_collections.ConfigDict:
    """The fields of one run: the job's own, then the changes.

    Args:
      config: of the job.
      name: of the run.
      changes: to the job's fields.
      insist: on the job's fields that were asked for by name too, and not on the
        changes' alone.
    """
    run = recipes.run()
    run.update({key: config[key] for key in run})
    insisted = set(model_fields.insisted(config)) if insist else set()
    if changes:
        run.update(changes)
        if "init" in changes:
            insisted |= set(model_fields.insisted(changes))
    run.init.insist = tuple(sorted(insisted))
    run.name = name
    return run
