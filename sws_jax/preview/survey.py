"""What a preview of a job knows: its networks, without data and weights, and notes.

`sws_jax.jobs.start` answers which network a run has, and which one teaches it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import ml_collections

from sws_jax.data import Dataset
from sws_jax.estimate import comparison
from sws_jax.jobs import build, check, places, preflight
from sws_jax.jobs.places import Images
from sws_jax.jobs.rows import Run
from sws_jax.jobs.start import Answers
from sws_jax.models.description import Description
from sws_jax.specs import Spec, Trained


class Survey:
    """Reads what exists, assumes ImageNet for missing data, and notes the assumptions.

    Args:
      config: of the job.
      workdir: where ``run:NAME`` paths of the config are found.
      image_size, classes, images: instead of what is read or assumed.
      data: what the runs train on, where the caller has read it.
      older: instead of `sws_jax.jobs.preflight.older_in` of the work directory.

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
        source = config.data.source
        if (
            data is None and source == "digits"
        ):  # It comes with a package, and is small.
            data = build.dataset(config)
        if data is not None:
            count, images_seen = len(data.train), Images.of(data)
            if image_size:
                square = (image_size, image_size)
                images_seen = dataclasses.replace(images_seen, image_size=square)
        else:
            count = comparison.IMAGENET_IMAGES
            images_seen = Images.assumed(config, workdir, image_size)
            source += " is not read; assumed"
        if image_size or classes:  # The names that were read are of other classes.
            num_classes = classes or images_seen.num_classes
            images_seen = dataclasses.replace(
                images_seen, num_classes=num_classes, class_names=(), known=False
            )
        self.images = images or count
        self._is_read = data is not None
        older = older or preflight.older_in(workdir)
        self._answers = Answers(images_seen, workdir, older)
        height, width = images_seen.image_size
        self.note(
            f"{source}: {self.images:,} training images, {height} x {width} pixels, "
            f"{images_seen.num_classes} classes, {images_seen.channels} colour channel"
            + ("s" if images_seen.channels > 1 else "")
        )

    def spec(self, run: Run) -> Trained:
        """The network that a run trains; those of earlier runs were asked for before.

        Raises:
          UserError: no run could start so; see `sws_jax.jobs.start.answer`.
        """
        origin = self._answers.origin(run.config)
        init = run.config.init
        if origin is None and (init.learngene or init.network):
            path = places.initial_file(run.config, self.workdir)
            self.note(f"no file {path}: the networks are as the config has them")
        check.check_teacher(run.config)
        answer = self._answers.answer_for(run.name, run.config)
        self.methods[run.name] = answer.about.method
        if self._is_read:
            durations = build.durations(run.config, self.images)
            schedule = build.schedule(run.config, durations)
            build.check_length(run.config, durations, schedule)
        if init.learngene and origin is not None:
            self.learngenes[answer.about.method] = origin.about
        return answer.spec

    def steps(self, run: Run) -> int:
        """The steps of a run, on so many images as are read or assumed."""
        epochs = run.config.schedule.total_epochs
        return build.durations(run.config, self.images).steps(epochs)

    def trains(self, path: str) -> bool:
        """Whether a path stands for an earlier run of this job."""
        return path in self._answers.runs

    def teacher(self, run: Run) -> Spec | None:
        """The network that teaches a run; see `sws_jax.jobs.start.Answers.teacher`."""
        return self._answers.teacher(run.config)

    def note(self, text: str) -> None:
        """Adds a note, unless it is there."""
        if text not in self.notes:
            self.notes.append(text)
