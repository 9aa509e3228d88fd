"""What networks cost, and what the runs of a job cost together: nothing is run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_collections

from sws_jax.data.pipeline import epoch_images
from sws_jax.errors import UserError
from sws_jax.estimate import comparison, flops
from sws_jax.jobs import phases, places, preflight, rows
from sws_jax.jobs.rows import Run
from sws_jax.methods import base
from sws_jax.models import weights
from sws_jax.models.description import Description
from sws_jax.models.names import named
from sws_jax.preview.survey import Survey, phase_lines
from sws_jax.specs import Compute, Spec
from sws_jax.storage import documents, paths
from sws_jax.storage.runs import weights_file
from sws_jax.training import roles
from sws_jax.training.picks import Picks

# What the quantities of `sws_jax.estimate.comparison.Plan` are called.
LABELS = {
    "stored": "stored parameters",
    "pretrainings": "pre-training runs",
    "epochs": "epochs",
    "layer_epochs": "layer-epochs",
    "flops": "training FLOPs",
}
# The way to have every depth that the learngenes are compared with.
SCRATCH_LONG = roles.SCRATCH[roles.SCRATCH_LONG]


@dataclasses.dataclass(frozen=True)
class NetworkCost:
    """What one network costs.

    Attributes:
      network: its name.
      parameters: of it, or of the learngene in its file.
      forward_flops: of the logits of one image.
      step_flops: of a training step, for each image; None for a network that is not
        trained here.
      activation_bytes: that training holds for each image; None as above.
    """

    network: str
    parameters: int
    forward_flops: int
    step_flops: int | None = None
    activation_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class RunCost:
    """What one run of a job costs.

    Attributes:
      run: its name.
      network: the name of the network that is trained.
      epochs: of its training.
      layer_epochs: applied blocks times epochs.
      parameters: that are trained: of the network, and of its objective.
      step_flops: of a training step, for each image, on average over the variants of
        a phase; None where nothing is trained.
      flops: of all training steps.
    """

    run: str
    network: str
    epochs: float
    layer_epochs: float
    parameters: int
    step_flops: float | None
    flops: float


@dataclasses.dataclass(frozen=True)
class JobCost:
    """What the runs of a job cost, one seed of every depth.

    Attributes:
      runs: in the order of the job.
      ways: to have every depth: by the learngene, of which there is one for each method
        (and then each is called by its method), and those from scratch.
      notes: what was assumed, and what is not counted.
    """

    runs: tuple[RunCost, ...]
    ways: dict[str, comparison.Plan]
    notes: tuple[str, ...]

    @property
    def totals(self) -> dict[str, dict[str, float]]:
        """Way -> quantity -> sum; what is stored is left out where it is not known."""
        return {
            name: {
                quantity: getattr(way, quantity)
                for quantity in comparison.QUANTITIES
                if way.kept or quantity != "stored"
            }
            for name, way in self.ways.items()
        }

    @property
    def ratios(self) -> dict[str, dict[str, float]]:
        """How many times more the long training from scratch costs than a learngene.

        By the learngene's way and the quantity. Empty for a job that lacks one of the
        two; infinite where the learngene costs nothing.
        """
        if SCRATCH_LONG not in self.ways:
            return {}
        return {
            name: comparison.ratios(self.ways[SCRATCH_LONG], way)
            for name, way in self.ways.items()
            if name not in roles.SCRATCH.values()
        }


def of_networks(
    names: Iterable[str],
    changes: dict[str, Any],
    compute: Compute,
    teacher_name: str | None,
) -> list[NetworkCost]:
    """The costs of networks by their names or files.

    Args:
      names: as in `sws_jax.models.names.named`.
      changes: to their specs.
      compute: how they are trained.
      teacher_name: name or file of a network whose forward is part of every step.

    Raises:
      UserError: a name is neither a network's nor a file's.
    """
    costs = []
    for name in names:
        spec = named(name, changes)
        cost = NetworkCost(spec.name, _stored(name, spec), flops.forward_flops(spec))
        if spec.trainable:
            taught_by = named_teacher(teacher_name, spec) if teacher_name else None
            cost = dataclasses.replace(
                cost,
                step_flops=flops.step_flops(spec, compute, taught_by),
                activation_bytes=flops.activation_bytes(spec, compute),
            )
        costs.append(cost)
    return costs


def named_teacher(name: str, student: Spec) -> Spec:
    """A network by its name or file, for the classes and channels of a student.

    It resizes the student's images to its own size.
    """
    input_and_head = ("num_classes", "channels")
    return named(name, {field: getattr(student, field) for field in input_and_head})


def of_job(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    image_size: int | None = None,
    classes: int | None = None,
    images: int | None = None,
    teacher_name: str | None = None,
) -> JobCost:
    """The costs of a job's runs, and of its ways to have every depth.

    Args:
      config: of the job.
      workdir: where ``run:NAME`` paths of the config are found.
      image_size, classes, images: as in `sws_jax.preview.survey.Survey`.
      teacher_name: name or file of the network that teaches, in place of the config's.

    Raises:
      UserError: the job could not be run so, or no run has a teacher to replace.
    """
    job = rows.runs(config)
    preflight.check(config, job)
    preflight.check_networks(job, workdir)
    # One seed of every depth: the others are for the spread alone.
    counted: dict[tuple[str, str], Run] = {}
    for row in job:
        counted.setdefault((row.role, _but_for_the_seed(row)), row)
    survey = Survey(
        config, workdir, image_size=image_size, classes=classes, images=images
    )
    survey.note("evaluation: not counted")
    runs = {
        row.name: counted_run(survey, row, teacher_name) for row in counted.values()
    }
    ways = _ways(survey, job, runs) if config.job != "single" else {}
    if teacher_name and not any(run.teacher for run in runs.values()):
        raise UserError("no run of this job is distilled: leave --teacher out")
    if len(job) > len(counted):
        survey.note(f"one seed counted: {len(counted)} of {len(job)} runs")
    if rows.at_once(job) > 1:
        survey.note(_one_after_another(job))
    costs = tuple(_cost_of_run(name, run) for name, run in runs.items())
    return JobCost(costs, ways, tuple(survey.notes))


def _one_after_another(job: Sequence[Run]) -> str:
    """A note on what runs at once cannot shorten."""
    lengths = rows.chains(job)
    needs = {row.name: row.after for row in job}
    names = [max(lengths, key=lengths.__getitem__)]
    while following := [n for n, after in needs.items() if names[-1] in after]:
        names.append(max(following, key=lengths.__getitem__))
    return (
        f"one after another, whatever --parallel is: {', '.join(names)}; the others go "
        f"beside them"
    )


def counted_run(survey: Survey, row: Run, teacher_name: str | None) -> comparison.Run:
    """A run of a job as `sws_jax.estimate.comparison` counts it."""
    init = row.config.init
    role = row.role
    if role == roles.SINGLE and (init.learngene or init.network):
        role = roles.TUNED
    spec = survey.spec(row)
    if survey.learngenes and init.learngene and not survey.trains(init.learngene):
        survey.note("teacher and Aux-Net of the learngene: not counted")
    epochs = row.config.schedule.total_epochs
    teacher = _teacher(survey, row, spec, teacher_name)
    picks = survey.picks(row, teacher)
    return comparison.Run(
        role,
        spec,
        epochs,
        epoch_images(survey.images, row.config.data.repeats),
        Compute(**row.config.compute),
        teacher,
        _step_flops(survey, row, picks) if epochs else None,
        flops.own_params(picks.recipe),
    )


def _step_flops(survey: Survey, row: Run, picks: Picks) -> float | None:
    """FLOPs for each image of a step; None where its network and teacher say them."""
    for line in phase_lines(row.name, picks, survey.programs(row, picks)):
        survey.note(line)
    if base.is_usual(picks.recipe.loss) and not picks.variants:
        return None
    return flops.mean_step_flops(picks, survey.steps(row))


def _teacher(survey: Survey, row: Run, student: Spec, name: str | None) -> Spec | None:
    """The teacher of a run; None without distillation, or where it is not known."""
    path = places.teacher_path(row.config)
    if not path:
        return None
    if not survey.trains(path):
        survey.note("training of the teacher: not counted")
    if name:
        return named_teacher(name, student)
    spec = survey.teacher(row)
    if spec is None:
        more = "" if base.is_usual(phases.objective(row.config)) else "objective and "
        what = f"{more}forward of the teacher"
        survey.note(
            f"{what} of {row.name}: not counted, as there is no file {path}; name a "
            f"network with --teacher, like levit_384"
        )
    return spec


def _but_for_the_seed(row: Run) -> str:
    """The config of a run as text, without the fields that differ between seeds."""
    fields = row.config.to_dict()
    del fields["name"], fields["seed"]
    return json.dumps(documents.plain(fields), sort_keys=True)


def _ways(
    survey: Survey, job: Sequence[Run], runs: Mapping[str, comparison.Run]
) -> dict[str, comparison.Plan]:
    """The ways of a job to have every depth, by their names.

    Args:
      survey: of the job, after it was asked for the networks of these runs.
      job: all its runs.
      runs: those that are counted, by their names.
    """
    descendants: dict[str, list[str]] = {}
    for name, run in runs.items():
        if run.role in roles.DESCENDANTS:
            descendants.setdefault(survey.methods[name], []).append(name)
    needs = {row.name: row.after for row in job}
    expanded = {row.name for row in job if row.config.init.learngene}
    ways = {}
    for method, names in descendants.items():
        needed = rows.closure(names, needs)
        own = tuple(run for name, run in runs.items() if name in needed)
        label = "learngene" if len(descendants) == 1 else method
        kept: tuple[Spec | Description, ...] = tuple(
            runs[name].spec for name in names if name not in expanded
        )
        if expanded.intersection(names):
            kept += _learngene(survey, method)
        ways[label] = comparison.Plan(own, kept)
    for role, label in roles.SCRATCH.items():
        if own := tuple(run for run in runs.values() if run.role == role):
            kept = tuple(run.spec for run in own)
            ways[label] = comparison.Plan(own, kept)
    return ways


def _learngene(survey: Survey, method: str) -> tuple[Description, ...]:
    """The learngene of a method, which must be stored to have every depth."""
    if method not in survey.learngenes:
        survey.note("stored parameters of the learngene: not known")
        return ()
    return (survey.learngenes[method],)


def _cost_of_run(name: str, run: comparison.Run) -> RunCost:
    """The cost of a run of that name."""
    step = run.step_flops if run.epochs else None
    return RunCost(
        name,
        run.spec.name,
        run.epochs,
        run.layer_epochs,
        flops.params(run.spec) + run.own,
        step,
        run.flops,
    )


def _stored(name: str, spec: Spec) -> int:
    """Parameters of a network, or what a learngene's file holds."""
    if name.endswith(".safetensors") or paths.exists(name):
        about = weights.describe(weights_file(name))
        if about.kind == "learngene":
            return flops.params(about.replace(net=spec.net, class_names=()))
    return flops.params(spec)
