"""A job as a plain list of runs, made from its config alone.

``single``      one run, as the config says.
``descendants`` one learngene file, many depths, with the comparisons asked for.
``chain``       ancestor (if no teacher is given), then of each method its phases, and
                descendants as above. Networks from scratch are those of all methods.

A larger comparison is more rows in the list.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence

import ml_collections

from sws_jax.errors import UserError
from sws_jax.jobs import check, fields, model_fields, phases, recipes
from sws_jax.methods import base, learngenes
from sws_jax.methods.base import FromGene, FromNetwork, FromRun, Method
from sws_jax.storage.names import LEARNGENE_FILE, RUN
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
      method: that its network is initialised by; empty where none is, or where its
        learngene is a file, which names it.
      publishes: name under which its learngene is copied to the work directory, where
        users look for it; empty where it leaves none.
    """

    name: str
    role: str
    config: ml_collections.ConfigDict
    after: tuple[str, ...] = ()
    method: str = ""
    publishes: str = ""


@dataclasses.dataclass(frozen=True)
class Source:
    """What the descendants of a method start from.

    Attributes:
      method: None where the learngene is a file, which names its method.
      learngene: its path, or ``run:NAME``.
      ancestor: path of the network that teaches, or ``run:NAME``; empty for none.
      needs: names of the runs that leave the learngene.
    """

    method: Method | None
    learngene: str
    ancestor: str
    needs: tuple[str, ...]

    @property
    def prefix(self) -> str:
        """What the names of their runs begin with."""
        return self.method.prefix if self.method else ""


def runs(config: ml_collections.ConfigDict) -> list[Run]:
    """The runs of a job, each after those it needs.

    Raises:
      UserError: an unknown job, comparison or depth.
    """
    check.check_job(config)
    builders = {"single": _single, "descendants": _descendants, "chain": _chain}
    return builders[fields.OLDER_JOBS.get(config.job, config.job)](config)


def closure(names: Iterable[str], needs: Mapping[str, Iterable[str]]) -> set[str]:
    """Runs, all that they need, and all that these need.

    Args:
      names: of the runs.
      needs: of each run; one that is missing here needs nothing.
    """
    reached: set[str] = set()
    to_ask = set(names)
    while to_ask:
        name = to_ask.pop()
        reached.add(name)
        to_ask |= set(needs.get(name, ())) - reached
    return reached


def layers(config: ml_collections.ConfigDict) -> int:
    """The applied blocks of a run's network, as far as its config says them."""
    model = config.model
    return sum(model.stages) or config.phase.depth or model.depth


def chains(rows: Sequence[Run]) -> dict[str, float]:
    """Of each run the longest chain that begins with it, in layer-epochs.

    A chain is a run, one that needs it, and so on. A run of no epochs counts too: it
    is scored.

    Args:
      rows: of a job, each after those it needs.
    """
    after: dict[str, float] = {}
    longest: dict[str, float] = {}
    for run in reversed(rows):
        own = layers(run.config) * (run.config.schedule.total_epochs + 1.0)
        longest[run.name] = own + after.get(run.name, 0.0)
        for name in run.after:
            after[name] = max(after.get(name, 0.0), longest[run.name])
    return longest


def at_once(rows: Sequence[Run]) -> int:
    """The most runs that can be under way at the same time.

    As found by letting the runs end one by one, in the order of the job.

    Args:
      rows: those that are not done, each after those it needs.
    """
    left = {run.name for run in rows}
    most = 0
    for run in rows:
        ready = sum(one.name in left and not left & set(one.after) for one in rows)
        most = max(most, ready)
        left.remove(run.name)
    return most


def _single(config) -> list[Run]:
    """One run, as the config says."""
    return [Run(config.name, roles.SINGLE, _run(config, config.name))]


def _chain(config) -> list[Run]:
    """An ancestor where no teacher is named, and each method with its descendants."""
    names = tuple(dict.fromkeys(config.get("methods", ("sws",))))
    if not names:
        raise UserError("methods is empty: name at least one method")
    # Those of which methods make networks and losses; the others are each run's.
    check.check_fields(config, ("model", "loss", "profile"))
    rows, ancestor = _ancestor(config)
    sources = []
    for method in map(learngenes.find_method, names):
        last = _add_phases(rows, config, method, ancestor)
        path = f"{RUN}{last}" if last else ""
        sources.append(Source(method, path, ancestor, (last,) if last else ()))
    return _with_ancestor(rows + _compare(config, config.tune, sources))


def _with_ancestor(rows: list[Run]) -> list[Run]:
    """The runs of a job, none of which waits for an ancestor that is given.

    An ancestor that no run needs is left out.
    """
    if all(row.name != ANCESTOR for row in rows):
        return [
            dataclasses.replace(
                row, after=tuple(name for name in row.after if name != ANCESTOR)
            )
            for row in rows
        ]
    is_needed = any(ANCESTOR in row.after for row in rows)
    return [row for row in rows if is_needed or row.name != ANCESTOR]


def _ancestor(config) -> tuple[list[Run], str]:
    """The run of the ancestor, unless the config names a teacher; and its path."""
    teacher = config.teacher.path
    if teacher:
        return [], teacher
    if "ancestor" not in config:
        raise UserError(
            "this config trains no ancestor: give its teacher as teacher=PATH, a "
            "weights file or the directory of a finished run"
        )
    run = Run(ANCESTOR, ANCESTOR, _run(config, ANCESTOR, config.ancestor))
    return [run], f"{RUN}{ANCESTOR}"


def _add_phases(rows: list[Run], config, method: Method, ancestor: str) -> str:
    """Adds the phases of a method to the rows; one that is there already is shared.

    Args:
      rows: of the job, until now.
      config: of the job.
      method: whose phases they are.
      ancestor: path of the ancestor.

    Returns:
      The name of the run that leaves the method's learngene; empty for none.

    Raises:
      UserError: another method has a phase of the same name, which differs.
    """
    present = {row.name: row for row in rows}
    shared: list[str] = []
    of_method = phases.of_method(config, method, _depths(config))
    last = phases.last(of_method)
    for phase in of_method:
        run = _run(config, phase.name)
        phases.set_fields(run, method, phase, ancestor, last=last)
        needs, publishes = phases.needs(phase, last), ""
        if phase.name == last:  # The learngene is made of all of them.
            needs += tuple(shared)
            publishes = f"{method.prefix}{LEARNGENE_FILE}"
        after = tuple(dict.fromkeys(needs))
        row = Run(phase.name, AUX, run, after, publishes=publishes)
        if (same := present.get(phase.name)) is None:
            rows.append(row)
        elif same.config.to_dict() != run.to_dict():
            raise UserError(
                f"{method.name} has a phase named {phase.name}, as another method of "
                f"this job, and they differ: phases that are not equal have different "
                f"names"
            )
        if phase.depth is None:
            shared.append(phase.name)
    return last


def _depths(config) -> tuple[int, ...]:
    """The depths of a comparison; one that is named twice is one."""
    return tuple(dict.fromkeys(config.compare.depths))


def _descendants(config) -> list[Run]:
    """The descendants of a learngene's file, and what they are compared with."""
    if not config.init.learngene:
        raise UserError(
            "this config starts from a learngene: give its file as learngene=PATH"
        )
    source = Source(None, config.init.learngene, "", ())
    return _compare(config, ml_collections.ConfigDict(), [source])


def _compare(config, tune, sources: Sequence[Source]) -> list[Run]:
    """Descendants of every depth, and what they are compared with.

    Args:
      config: of the job.
      tune: changes to its fields for the descendants.
      sources: that these start from.
    """
    compare = config.compare
    if not compare.depths:
        raise UserError("compare.depths is empty: name at least one depth")
    rows = []
    for number, depth in itertools.product(range(compare.seeds), _depths(config)):
        if number and compare.level == "untuned":
            continue  # No method here draws anything in its expansion.
        label = f"L{depth:02d}" + (f"-seed{number}" if number else "")
        own = [
            _descendant(config, tune, source, depth, number, label)
            for source in sources
        ]
        rows += own
        if compare.level == "full":
            rows += _from_scratch(config, number, label, own[0].config)
    return rows


def _descendant(
    config, tune, source: Source, depth: int, number: int, label: str
) -> Run:
    """A descendant of one depth, tuned or as it is expanded.

    Args:
      config: of the job.
      tune: changes to its fields.
      source: that it starts from.
      depth: in blocks.
      number: of the seed, from 0.
      label: of depth and seed, for its name.
    """
    untuned = config.compare.level == "untuned"
    role = roles.UNTUNED if untuned else roles.TUNED
    name = f"{source.prefix}{'untuned' if untuned else 'des'}-{label}"
    # Fields that were set by name were meant for the Aux-Net, not for descendants.
    run = _run(config, name, tune, insist=source.method is None)
    run.seed = config.seed + number
    run.model.depth = depth
    needs = _set_start(run, source, depth)
    if untuned:
        run.schedule.update(total_epochs=0.0, warmup_epochs=0.0)
    method = source.method.name if source.method else ""
    return Run(name, role, run, needs, method)


def _set_start(run, source: Source, depth: int) -> tuple[str, ...]:
    """Sets where a descendant starts; returns the runs that it needs."""
    method = source.method
    start = method.start(depth) if method else FromGene()
    if isinstance(start, FromGene):
        if method and not (start.path or source.learngene):
            raise UserError(
                f"{method.name} has no phase that leaves a learngene for "
                f"its descendants: give it one, or another start of its descendants"
            )
        run.init.learngene = start.path or source.learngene
        run.init.plan = tuple(start.plan or ())
        return phases.runs_named(start.path) if start.path else source.needs
    if isinstance(start, FromRun):
        is_ancestor = start.phase == ANCESTOR
        run.init.network = source.ancestor if is_ancestor else f"{RUN}{start.phase}"
        return (start.phase,)
    if isinstance(start, FromNetwork):
        run.init.network = start.path
        return phases.runs_named(start.path)
    if isinstance(start, base.Seed):
        return ()
    raise UserError(f"no descendant starts from {type(start).__name__}, but phases do")


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
