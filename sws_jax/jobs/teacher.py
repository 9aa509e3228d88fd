"""The Ans-Net: a frozen network that an Aux-Net is distilled from."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping

from sws_jax import arguments
from sws_jax.data import classes
from sws_jax.data.base import Dataset
from sws_jax.errors import UserError
from sws_jax.models import networks
from sws_jax.models.networks import Predictor
from sws_jax.specs import Spec, limits
from sws_jax.specs.base import CLASSES, COUNT, DTYPE
from sws_jax.storage import runs

_DATASET = arguments.of(Dataset, called="a Dataset (sws_jax.data.load_dataset)")


@arguments.checked(dtype=DTYPE)
def load_teacher(path: str | os.PathLike[str], *, dtype: str = "float32") -> Predictor:
    """Reads a teacher from a weights file, or from a finished run's directory.

    Args:
      path: a ``.safetensors`` file of this project, or a directory with
        ``weights.safetensors`` in it.
      dtype: the teacher computes in, whatever its student's.

    Raises:
      UserError: nothing usable is there.
    """
    network = networks.load_network(runs.weights_file(os.fspath(path)))
    return networks.predictor(network, dtype=dtype)


@arguments.checked(teacher=networks.PREDICTOR, dataset=_DATASET)
def for_classes(teacher: Predictor, dataset: Dataset) -> tuple[Predictor, str]:
    """A teacher whose outputs stand in the order of a set's classes.

    Returns:
      The teacher, and a line on the names of its classes; empty where they are the
      set's.

    Raises:
      UserError: its head or input does not fit the student's data, or the names
        contradict each other.
    """
    spec = teacher.network.spec
    check_fits(
        spec,
        num_classes=dataset.num_classes,
        channels=dataset.image_shape[-1],
        name=dataset.name,
    )
    about = teacher.network.description
    known = about.class_names if about else ()
    who = f"the teacher {spec.name}"
    match = classes.match(known, dataset.class_names, who, dataset.name)
    return dataclasses.replace(teacher, order=match.order), match.note


@arguments.checked(spec=networks.SPEC, num_classes=CLASSES, channels=COUNT)
def check_fits(spec: Spec, *, num_classes: int, channels: int, name: str) -> None:
    """Refuses a teacher whose head or input does not fit the student's images.

    Args:
      spec: of the teacher.
      num_classes, channels: of the images.
      name: of their set.

    Raises:
      UserError: naming both.
    """
    if spec.num_classes != num_classes:
        raise UserError(
            f"the teacher {spec.name} has {spec.num_classes} classes and {name} has "
            f"{num_classes}; take a teacher trained on these classes"
        )
    if spec.channels != channels:
        raise UserError(
            f"the teacher {spec.name} takes {spec.channels} channels and {name} has "
            f"{channels}"
        )


@arguments.checked(
    scores=arguments.of(Mapping, called="a mapping of scores"),
    dataset=_DATASET,
    minimum=arguments.number(limits.MIN_ACCURACY),
)
def check_scores(scores: Mapping[str, float], dataset: Dataset, minimum: float) -> None:
    """Refuses a teacher that knows nothing: distilling it would teach nothing.

    Args:
      scores: ``top1`` and ``loss`` of the teacher on the validation images.
      dataset: for its number of classes.
      minimum: smallest acceptable top-1; below 0 asks for a tenth of the way from
        chance to perfect.
    """
    top1 = scores["top1"]
    if not math.isfinite(scores["loss"]):
        raise UserError(
            f"the teacher's logits of validation images are not all numbers (their "
            f"cross entropy is {scores['loss']}): its weights are damaged, or "
            f"teacher.dtype holds less than they need"
        )
    chance = 1.0 / dataset.num_classes
    floor = minimum if minimum >= 0 else chance + 0.1 * (1.0 - chance)
    if top1 < floor:
        raise UserError(
            f"the teacher's validation accuracy is {top1:.1%}, near chance "
            f"({chance:.1%}) or below what was asked ({floor:.1%}): wrong weights, "
            f"class order or input normalisation (--config.teacher.min_accuracy=0 "
            f"goes on)"
        )
