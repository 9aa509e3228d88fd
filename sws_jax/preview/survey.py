"""Networks and steps of a job that is previewed, without data and weights, and notes.

`sws_jax.jobs.start` answers which network a run has, and which one teaches it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import ml_collections
from jax.sharding import Mesh

from sws_jax.data import Dataset, resident
from sws_jax.errors import UserError
from sws_jax.estimate import comparison, flops, sizing
from sws_jax.jobs import build, check, places, preflight
from sws_jax.jobs.places import Images
from sws_jax.jobs.rows import Run
from sws_jax.jobs.start import Answers
from sws_jax.methods.objectives import Loss
from sws_jax.models import networks
from sws_jax.models.description import Description
from sws_jax.models.networks import Network, Predictor
from sws_jax.models.outputs import Outputs
from sws_jax.pixels import default_normalization
from sws_jax.runtime import words
from sws_jax.specs import Compute, Spec, Trained
from sws_jax.training import step
from sws_jax.training.picks import Picks, Program
from sws_jax.training.step import Recipe, Student
from sws_jax.trees import Tree


class _Untaught(Loss):
    """A placeholder: cross entropy of every student, while no teacher is known."""

    def __call__(
        self,
        own: Tree,
        students: tuple[Outputs, ...],
        targets: jax.Array,
        teacher: Outputs | None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        losses = [self.of(student.logits, targets) for student in students]
        return sum(losses[1:], losses[0]), {}


def phase_lines(name: str, picks: Picks, programs: Sequence[Program]) -> list[str]:
    """Lines on what a phase trains besides its network, and on its variants.

    Args:
      name: of the run.
      picks: of the run; see `Survey.picks`.
      programs: of the run; see `Survey.programs`.
    """
    lines = []
    if count := flops.own_params(picks.recipe):
        lines.append(f"{name}: {count:,} parameters are its objective's own")
    if picks.variants:
        variants = words.many(len(picks.variants), "variant")
        lines.append(
            f"{name}: {variants} in {words.many(len(programs), 'program')}: memory "
            f"is that of the largest, and FLOPs are a mean over the steps"
        )
    return lines


def _images(
    config: ml_collections.ConfigDict,
    workdir: str,
    data: Dataset | None,
    image_size: int | None,
    classes: int | None,
) -> Images:
    """What is known of the images that runs train on, or assumed of them.

    Args:
      config, workdir: as in `Survey`.
      data: what was read; None assumes ImageNet.
      image_size, classes: instead of those.
    """
    if data is None:
        images = Images.assumed(config, workdir, image_size)
    else:
        images = Images.of(data)
        if image_size:
            images = dataclasses.replace(images, image_size=(image_size, image_size))
    if image_size or classes:  # The names that were read are of other classes.
        num_classes = classes or images.num_classes
        images = dataclasses.replace(
            images, num_classes=num_classes, class_names=(), known=False
        )
    return images


class Survey:
    """Reads what exists, assumes ImageNet for missing data, and notes the assumptions.

    Args:
      config: of the job.
      workdir: where ``run:NAME`` paths of the config are found.
      image_size, classes, images: instead of what is read or assumed.
      data: what the runs train on, where the caller has read it.
      older: whether a run goes on as older software began it; by default what
        `sws_jax.jobs.preflight.older_in` finds in the work directory.

    Attributes:
      images: of an epoch.
      learngenes: what descendants were expanded from, by method; those that are known.
      methods: of the runs' networks, by the names of the runs; empty for those of none.
      notes: what was assumed.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: str,
        *,
        image_size: int | None = None,
        classes: int | None = None,
        images: int | None = None,
        data: Dataset | None = None,
        older: Callable[[str], bool] | None = None,
    ):
        self.workdir = workdir
        self.notes: list[str] = []
        self.learngenes: dict[str, Description] = {}
        self.methods: dict[str, str] = {}
        if data is None and config.data.source == "digits":
            data = build.dataset(config)  # It comes with a package, and is small.
        self._data = data
        count = comparison.IMAGENET_IMAGES if data is None else len(data.train)
        self.images = images or count
        trained_on = _images(config, workdir, data, image_size, classes)
        older = older or preflight.older_in(workdir)
        self._answers = Answers(trained_on, workdir, older)
        self._note_images(config.data.source, trained_on)

    def _note_images(self, source: str, trained_on: Images) -> None:
        """Notes what the runs train on, and whether it was read."""
        assumed = "" if self._data is not None else " is not read; assumed"
        height, width = trained_on.image_size
        self.note(
            f"{source}{assumed}: {self.images:,} training images, {height} x {width} "
            f"pixels, {trained_on.num_classes} classes, "
            f"{words.many(trained_on.channels, 'colour channel')}"
        )

    def spec(self, run: Run) -> Trained:
        """The network that a run trains; those of earlier runs were asked for before.

        Raises:
          UserError: no run could start so; see `sws_jax.jobs.start.answer`.
        """
        origin = self._answers.origin(run.config)
        init = run.config.init
        if origin is None and (init.learngene or init.network):
            missing = self._missing(run)
            self.note(f"{missing}: the networks are as the config has them")
        check.check_teacher(run.config)
        answer = self._answers.answer_for(run.name, run.config)
        self.methods[run.name] = run.method or answer.about.method
        if self._data is not None:
            durations = build.durations(run.config, self.images)
            schedule = build.schedule(run.config, durations)
            build.check_length(run.config, durations, schedule)
        if init.learngene and origin is not None:
            self.learngenes[self.methods[run.name]] = origin.about
        return answer.spec

    def _missing(self, run: Run) -> str:
        """Why it is not known what a run starts from, in words."""
        path = run.config.init.learngene or run.config.init.network
        if self.trains(path):
            name = path.removeprefix(places.RUN)
            return f"what {name} leaves is not known before it is trained"
        return f"no file {places.initial_file(run.config, self.workdir)}"

    def steps(self, run: Run) -> int:
        """The steps of a run, on so many images as are read or assumed."""
        epochs = run.config.schedule.total_epochs
        return build.durations(run.config, self.images).steps(epochs)

    def picks(self, run: Run, teacher: Spec | None) -> Picks:
        """What the steps of a run compute; `spec` was asked for its network before.

        Where a teacher is needed that is not known, networks learn from labels alone.

        Args:
          run: of the job.
          teacher: the network that teaches it, if it is known.

        Raises:
          UserError: a batch cannot be mixed as the config says, or the variants of its
            phase are none of its network.
        """
        spec = self._answers.specs[run.name]
        normalization = default_normalization(spec.channels)  # Sizes depend on none.
        recipe = build.recipe(run.config, spec, normalization, teacher)
        if recipe.loss.needs_teacher and teacher is None:
            recipe = dataclasses.replace(recipe, loss=_Untaught())
        images = self._answers.images
        assert images is not None  # The survey has given them.
        return build.picks(run.config, recipe, images)

    def programs(self, run: Run, picks: Picks) -> list[Program]:
        """The programs that a run compiles.

        Args:
          run: of the job.
          picks: of the run.
        """
        return picks.programs(max(self.steps(run), 1))

    def resident_bytes(self, run: Run, device: resident.Device) -> int:
        """Bytes of the training images that live on each device of a run.

        Where the images are not read, none do but those that the config says.

        Raises:
          UserError: the config says so, and it cannot be done.
        """
        choice, transform = run.config.data.on_device, build.transform(run.config)
        images = self._answers.images
        assert images is not None  # The survey has given them.
        there = choice == "yes"
        if self._data is not None:
            there = resident.lives_there(choice, self._data, transform, device)
        elif choice == "auto" and device.memory and not transform.changes:
            self.note(
                "training images that live on the devices by data.on_device=auto: not "
                "counted, at most a tenth of the memory"
            )
        shape = (*images.image_size, images.channels)
        return resident.bytes_of(self.images, shape) if there else 0

    def trains(self, path: str) -> bool:
        """Whether a path stands for an earlier run of this job."""
        name = path.removeprefix(places.RUN)
        return path != name and name in self._answers.specs

    def teacher(self, run: Run) -> Spec | None:
        """The network that teaches a run; see `sws_jax.jobs.start.Answers.teacher`."""
        return self._answers.teacher(run.config)

    def note(self, text: str) -> None:
        """Adds a note, unless it is there."""
        if text not in self.notes:
            self.notes.append(text)


class LargestStep(NamedTuple):
    """The step of a run that holds the most, as `sws_jax.estimate.sizing` takes it.

    Attributes:
      recipe: its static part.
      size: images of the global batch.
      teacher: shapes of the network that teaches, with their shardings; None without.
      students: what the variants of its program pass to it.
      replayed: whether the run computes some of its steps twice.
      images: bytes of the training images that live on each device.
      lines: on what the run trains besides its network, and on its variants; see
        `phase_lines`.
    """

    recipe: Recipe
    size: int
    teacher: Predictor | None
    students: tuple[Student, ...]
    replayed: bool
    images: int
    lines: list[str]


def largest_step(
    survey: Survey, run: Run, mesh: Mesh, device: resident.Device
) -> LargestStep:
    """The largest step of a run; the survey was asked for its network before.

    Args:
      survey: of the job.
      run: of that job, which trains.
      mesh: to run on.
      device: each of that mesh.

    Raises:
      UserError: as `Survey.picks` and `Survey.resident_bytes`, or it is not known
        which network teaches the run.
    """
    teacher = _teacher_shapes(survey, run, mesh)
    picks = survey.picks(run, teacher.network.spec if teacher else None)
    programs = survey.programs(run, picks)
    recipe, students = sizing.largest(programs)
    return LargestStep(
        recipe,
        run.config.global_batch_size,
        teacher,
        students,
        run.config.replay.every_steps > 0,
        survey.resident_bytes(run, device),
        phase_lines(run.name, picks, programs),
    )


def _teacher_shapes(survey: Survey, run: Run, mesh: Mesh) -> Predictor | None:
    """Shapes of a run's teacher, with their shardings; None without distillation.

    Raises:
      UserError: it is not known which network teaches the run.
    """
    config = run.config
    if not places.needs_teacher(config):
        return None
    spec = survey.teacher(run)
    if spec is None:
        raise UserError(
            f"the teacher of {run.name} is not known, as there is no file "
            f"{config.teacher.path}: name a network in its place, like regnety_160"
        )
    params = jax.tree.map(
        step.with_sharding,
        networks.abstract_params(spec),
        step.network_shardings(spec, mesh),
    )
    return Predictor(
        Network(spec, params),
        default_normalization(spec.channels),  # No size depends on it.
        Compute(dtype=config.teacher.dtype),
    )
