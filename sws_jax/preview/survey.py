"""The networks that the runs of a job train, found without data and weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import ml_collections

from sws_jax import specs
from sws_jax.data import Dataset, classes
from sws_jax.data.pipeline import epoch_images
from sws_jax.errors import UserError
from sws_jax.estimate import comparison
from sws_jax.jobs import build, chain, places, start, teacher
from sws_jax.jobs.chain import Run
from sws_jax.models import networks, weights
from sws_jax.models.description import Description
from sws_jax.specs import AuxViTSpec, Spec, ViTSpec
from sws_jax.storage import paths


class Survey:
    """Reads what there is, assumes ImageNet where data is not here, and says which.

    Args:
      config: of the job.
      workdir: where ``run:NAME`` paths of the config are found.
      image_size, classes, images: instead of what is read or assumed.
      data: what the runs train on, where the caller has read it.
      older: instead of `sws_jax.jobs.chain.older_in` of the work directory.

    Attributes:
      shape: ``image_size``, ``channels`` and ``num_classes`` of every run.
      images: of an epoch.
      learngene: what descendants were expanded from: an earlier run's network or a
        file's description; None where none is known.
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
        self.learngene: Spec | Description | None = None
        source, read = config.data.source, data
        if read is None and source == "digits":  # comes with a package, and is small
            read = build.dataset(config)
        known = read is not None and not (image_size or classes)
        if read is not None:
            found, shape = len(read.train), start.Images.of(read)
            size = (image_size,) * 2 if image_size else shape.image_size
        else:
            found, shape = comparison.IMAGENET_IMAGES, _assumed(config, workdir)
            side = image_size or config.data.image_size
            if not side:
                raise UserError(
                    "this config takes images as large as its source has them, which "
                    "is not read here: say it as --config.data.image_size"
                )
            size = (side, side)
            source += " is not read; assumed"
        self.images = images or found
        self.shape: dict[str, Any] = dict(
            image_size=size,
            channels=shape.channels,
            num_classes=classes or shape.num_classes,
        )
        looks = dataclasses.replace(shape, known=known, **self.shape)
        if not known:  # other classes than those whose names were read
            looks = dataclasses.replace(looks, class_names=())
        self._images, self._known = looks, known
        self._read = read is not None
        older = older or chain.older_in(workdir)
        self._answers = start.Answers(looks, workdir, older)
        channels = self.shape["channels"]
        self.note(
            f"{source}: {self.images:,} training images, {size[0]} x {size[1]} pixels, "
            f"{self.shape['num_classes']} classes, {channels} colour channel"
            + ("s" if channels > 1 else "")
        )

    def spec(self, run: Run) -> ViTSpec | AuxViTSpec:
        """Of the network that a run trains; those of earlier runs must be known.

        Raises:
          UserError: no run could start so; see `sws_jax.jobs.start.answer`.
        """
        origin = self._answers.origin(run.config)
        init = run.config.init
        if origin is None and (init.learngene or init.network):
            path = places.initial_file(run.config, self.workdir)
            self.note(f"no file {path}: the networks are as the config has them")
        build.check_teacher(run.config)
        found = self._answers.of(run.name, run.config).spec
        if self._read:
            epoch = epoch_images(self.images, run.config.data.repeats)
            durations = build.Durations(epoch, run.config.global_batch_size)
            schedule = build.schedule(run.config, durations)
            build.check_length(run.config, durations, schedule)
        if init.learngene and origin is not None:
            own = self.trains(init.learngene)
            self.learngene = origin.about.spec if own else origin.about
        return found

    def trains(self, path: str) -> bool:
        """Whether a path stands for an earlier run of this job."""
        return path in self._answers.runs

    def teacher(self, run: Run) -> Spec | None:
        """Of a distillation: an earlier run's, a file's, or the network of that name.

        None without distillation, and where nothing is known.

        Raises:
          UserError: no run could be taught so.
        """
        path = run.config.teacher.path
        if not path or not build.needs_teacher(run.config):
            return None
        if path in self._answers.runs:
            return self._answers.runs[path].about.spec
        resolved = places.resolve(path, self.workdir)
        if paths.exists(resolved):
            file = teacher.weights_file(resolved)
            about = weights.describe(file)
            networks.check_network(file, about)
            if self._known:
                teacher.check_fits(
                    about.spec,
                    num_classes=self._images.num_classes,
                    channels=self._images.channels,
                    name=self._images.name,
                )
                who, ours = f"the teacher {about.spec.name}", self._images.class_names
                classes.match(about.class_names, ours, who, self._images.name)
            return about.spec
        if is_name(path):
            changes = {n: self.shape[n] for n in ("num_classes", "channels")}
            return named(path, changes)
        return None

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _assumed(config, workdir: str) -> start.Images:
    """ImageNet, in the colours of the files that the job starts from or is taught by.

    (A run takes images of other channels, or a teacher of other classes, for none.)
    """
    count, channels = 1000, 3
    taught = config.teacher.path if build.needs_teacher(config) else ""
    path = places.resolve(taught, workdir)
    if (origin := start.find_origin(config, workdir)) is not None:
        channels = origin.about.net.channels
    elif path and paths.exists(path):
        about = weights.describe(teacher.weights_file(path))
        channels, count = about.net.channels, about.net.num_classes
    return start.Images((1, 1), channels, count, known=False)


def is_name(text: str) -> bool:
    """Whether a text looks like a network's name, and not like a file."""
    if text.endswith(".safetensors") or paths.exists(text):
        return False
    return text in _teachers() or text.startswith(("vit_", "aux_vit_"))


def named(name: str, changes: dict[str, Any]) -> Any:
    """The spec of a network's name, or of a weights file.

    Args:
      name: like vit_small_patch16_L12, aux_vit_small_patch16_3-3-4-3-3 or levit_384.
      changes: to the spec.

    Raises:
      UserError: it is neither.
    """
    found: Any = None
    if name.endswith(".safetensors") or paths.exists(name):
        found = weights.describe(teacher.weights_file(name)).spec
    elif is_name(name):
        found = _teachers().get(name)
        if found is None:
            return specs.named(name, **changes)
    else:
        raise UserError(
            f"no network is named {name!r}, and it is no file: names look like "
            f"vit_small_patch16_L12 or aux_vit_small_patch16_3-3-4-3-3, or are "
            f"{', '.join(_teachers())}"
        )
    if isinstance(found, AuxViTSpec):
        return AuxViTSpec(found.net.replace(**changes), found.stages)
    return found.replace(**changes)


def _teachers() -> dict[str, Any]:
    return {**specs.LEVITS, **specs.REGNETS}
