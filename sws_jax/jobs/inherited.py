"""What a run takes over from the file that it starts from, and what it says of it."""

from __future__ import annotations

import re
from collections.abc import Callable

from sws_jax.data import classes
from sws_jax.errors import UserError
from sws_jax.jobs.origins import Images
from sws_jax.models import profiles
from sws_jax.models.description import Description


def keeps_head(
    config,
    path: str,
    origin: Description,
    images: Images,
    tell: Callable[[str], None],
) -> tuple[bool, tuple[int, ...]]:
    """Whether a run takes over the head of a file, and in which order of its outputs.

    Args:
      config: of the run.
      path: of the file.
      origin: its description.
      images: that the run trains on.
      tell: takes a line that says so.

    Raises:
      UserError: the head is asked for and does not fit, or the names of its classes
        contradict those of the images.
    """
    kept, reason = _head(config, origin, images)
    order: tuple[int, ...] = ()
    if kept:
        # Who keeps a head of other names says so, or has the released code do it.
        match = classes.match(origin.class_names, images.class_names, path, images.name)
        order = match.order
        reason += f"; {match.said}" if match.said else ""
    tell(f"{config.name}: head {'inherited' if kept else 'fresh'}: {reason}")
    return kept, order


def tell_pixels(
    config, origin: Description, images: Images, tell: Callable[[str], None]
) -> None:
    """Tells where a file has seen other pixels than those of the run."""
    before, now = origin.normalization, images.normalization
    if now is not None and before != now:
        tell(
            f"{config.name}: pixels of mean {now.mean} and deviation {now.std}, where "
            f"these weights have seen {before.mean} and {before.std} (data.mean and "
            f"data.std set them)"
        )


def check_channels(path: str, channels: int, images: Images) -> None:
    """Refuses a file for images of other channels.

    Raises:
      UserError: naming both.
    """
    if images.known and channels != images.channels:
        raise UserError(
            f"{path} takes images of {channels} channels, and {images.name} has "
            f"{images.channels}"
        )


def _head(config, origin: Description, images: Images) -> tuple[bool, str]:
    """Whether the head of a file is for the classes of a dataset, and why."""
    theirs, ours = origin.net.num_classes, images.num_classes
    if config.init.head == "fresh":
        return False, "as init.head says"
    if theirs != ours:
        if config.init.head == "keep" and images.known:
            raise UserError(
                f"init.head=keep: the file has {theirs} classes and {images.name} has "
                f"{ours}"
            )
        return False, f"it has {theirs} classes and {images.name} has {ours}"
    if config.init.head == "keep":
        return True, "as init.head says"
    otherwise = " (--config.init.head=keep takes it over)"
    if profiles.find(config.profile).head_by == "classes":
        if not origin.class_names:
            return False, f"its classes have no names to compare{otherwise}"
        one, other = origin.class_names, images.class_names
        same = set(map(classes.clean, one)) == set(map(classes.clean, other))
        which = "the same" if same else "other"
        reason = f"the classes of {images.name} have {which} names"
        return same, reason + ("" if same else otherwise)
    # The released code inherits the head on ImageNet alone, where it was trained.
    same = _set_name(origin.dataset) == _set_name(images.name)
    known = f"was trained on {origin.dataset}" if origin.dataset else "names no dataset"
    reason = f"its file {known}, and this is {images.name}"
    return same, reason + ("" if same else otherwise)


def _set_name(name: str) -> str:
    """The name of a dataset, which is one for the many spellings of ImageNet."""
    is_imagenet = re.fullmatch(r"(imagenet|ilsvrc)[-_]?(2012|1k)?", name.lower())
    return "imagenet" if is_imagenet else name
