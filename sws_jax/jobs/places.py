"""Paths of the files that a run starts from; its images and weights by description.

No image and no array is read.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Collection
from typing import Any

from sws_jax.data import Dataset
from sws_jax.data.transforms import Fit
from sws_jax.errors import UserError
from sws_jax.jobs import phases
from sws_jax.methods.base import Made
from sws_jax.models import weights
from sws_jax.models.description import Description
from sws_jax.pixels import Normalization
from sws_jax.storage import paths, runs
from sws_jax.storage.names import LEARNGENE_FILE, RUN

_IMAGENET_CLASSES, _COLOURS = 1000, 3


def resolve(path: str, workdir: str) -> str:
    """``run:NAME`` as the directory of that run; any other path as it is."""
    if path.startswith(RUN):
        return os.path.join(workdir, path.removeprefix(RUN))
    return path


def inputs(
    config, workdir: str, fields: Collection[str] | None = None
) -> dict[str, str]:
    """A digest of every weights file that a run starts from, by field.

    Args:
      config: of the run.
      workdir: where ``run:NAME`` paths are found.
      fields: those whose files are read; None: all.
    """
    earlier = earlier_phases(config).items()
    files = {
        **{field: _weights_if_any(path, workdir) for field, path in earlier},
        "init.learngene": learngene_file(config, workdir),
        "init.network": _weights_if_any(config.init.network, workdir),
        "teacher.path": _weights_if_any(teacher_path(config), workdir),
    }
    return {
        field: _digest(path, paths.version(path))
        for field, path in files.items()
        if path and paths.is_file(path) and (fields is None or field in fields)
    }


def earlier_phases(config) -> dict[str, str]:
    """The paths of phases from which a run's start or learngene is made, by field."""
    phase = phases.find(config)
    if phase is None:
        return {}
    names = list(phase.start.after) if isinstance(phase.start, Made) else []
    if phases.leaves_learngene(config):
        names += phases.earlier(config)
    return {f"phase.after.{name}": phases.path_of(config, name) for name in names}


@functools.lru_cache(maxsize=64)
def _digest(path: str, version: tuple[int, ...]) -> str:
    """The digest of a file; cached, since many runs start from one file."""
    with open(paths.here(path), "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def _weights_if_any(path: str, workdir: str) -> str:
    """The weights file of a path; empty where it is gone, as a finished run allows."""
    try:
        return runs.weights_file(resolve(path, workdir)) if path else ""
    except UserError:
        return ""


def learngene_file(config, workdir: str) -> str:
    """The learngene of `init`, which may name a run's directory."""
    path = resolve(config.init.learngene, workdir)
    return os.path.join(path, LEARNGENE_FILE) if paths.is_dir(path) else path


def network_file(config, workdir: str) -> str:
    """The network of `init`, which may name a run's directory."""
    path = resolve(config.init.network, workdir)
    return runs.weights_file(path) if path else path


def initial_file(config, workdir: str) -> str:
    """The weights file that a run starts from; empty where it starts from a seed."""
    if config.init.learngene:
        return learngene_file(config, workdir)
    return network_file(config, workdir)


def initial_file_is_outside(config) -> bool:
    """Whether a run starts from a file that is no earlier run's of its job."""
    path = config.init.learngene or config.init.network
    return bool(path) and not path.startswith(RUN)


def needs_teacher(config) -> bool:
    """Whether a run is distilled."""
    return phases.objective(config).needs_teacher


def teacher_path(config) -> str:
    """The path of a run's teacher, as the config has it; empty without distillation."""
    return config.teacher.path if needs_teacher(config) else ""


def fit(config, data: Dataset) -> Fit:
    """The view of the images that a run scores."""
    return Fit(data.image_shape[:2], config.data.eval_crop)


@dataclasses.dataclass(frozen=True)
class Images:
    """What a run's network depends on of its images.

    Attributes:
      image_size: height and width in pixels.
      channels: of colour.
      num_classes: of the set.
      name: of the set.
      class_names: in the order of the labels; empty where they are not known.
      normalization: of the pixels; None takes what is usual.
      known: whether the set was read. Where it is assumed, no file is refused for not
        fitting it.
    """

    image_size: tuple[int, int]
    channels: int
    num_classes: int
    name: str = ""
    class_names: tuple[str, ...] = ()
    normalization: Normalization | None = None
    known: bool = True

    @property
    def input_and_head(self) -> dict[str, Any]:
        """The fields of a network that follow from its images."""
        return dict(
            image_size=self.image_size,
            channels=self.channels,
            num_classes=self.num_classes,
        )

    @classmethod
    def of(cls, data: Dataset) -> Images:
        """The images of a dataset that was read."""
        height, width, channels = data.image_shape
        return cls(
            image_size=(height, width),
            channels=channels,
            num_classes=data.num_classes,
            name=data.name,
            class_names=data.class_names,
            normalization=data.normalization,
        )

    @classmethod
    def assumed(cls, config, workdir: str, image_size: int | None = None) -> Images:
        """Images like ImageNet's, for a job whose data is not here.

        No run takes images whose channels differ from its network's, or a teacher of
        other classes, so both are read from the job's files.

        Args:
          config: of the job.
          workdir: where ``run:NAME`` paths are found.
          image_size: height and width in pixels; default the config's.

        Raises:
          UserError: it is not known how large the images are.
        """
        num_classes, channels = _IMAGENET_CLASSES, _COLOURS
        path = resolve(teacher_path(config), workdir)
        if (origin := find_origin(config, workdir)) is not None:
            channels = origin.about.net.channels
        elif path and paths.exists(path):
            teacher = weights.describe(runs.weights_file(path)).net
            channels, num_classes = teacher.channels, teacher.num_classes
        side = image_size or config.data.image_size
        if not side:
            raise UserError(
                "this config takes images as large as its source has them, which "
                "is not read here: say it as --config.data.image_size"
            )
        return cls((side, side), channels, num_classes, known=False)

    @classmethod
    def placeholder(cls, config, origin: Origin | None) -> Images:
        """Placeholder images, for questions that do not depend on the data.

        Args:
          config: of the run.
          origin: that it starts from.
        """
        if origin is None:
            patch = config.model.patch_size
            return cls((patch, patch), channels=1, num_classes=1, known=False)
        net = origin.about.net
        return cls(net.image_size, net.channels, net.num_classes, known=False)


@dataclasses.dataclass(frozen=True)
class Origin:
    """The trained weights that a run starts from, by their description.

    Attributes:
      path: of their file, for messages.
      about: their description.
    """

    path: str
    about: Description


def find_origin(config, workdir: str) -> Origin | None:
    """The description of the file that a run starts from; None where none is there.

    Raises:
      UserError: the file cannot be read.
    """
    path = initial_file(config, workdir)
    if not path or not paths.is_file(path):
        return None
    return Origin(path, weights.describe(path))
