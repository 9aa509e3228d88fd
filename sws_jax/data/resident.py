"""Training images that live on the devices, where batches are cut out of them.

The host draws which images a batch has, how far each is shifted and whether it is
mirrored (`pipeline.train_draws`); the devices, each of which holds all images as uint8,
do the rest. The batches are those of `pipeline.train_batches`, bit for bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from sws_jax import sharding
from sws_jax.data import arrays, base, pipeline
from sws_jax.data.base import Dataset, Split
from sws_jax.data.transforms import Transform
from sws_jax.errors import UserError
from sws_jax.runtime import words

# Platforms where it was measured whether training is faster for it, which is what
# data.on_device=auto goes by. Two busy CPU cores, in turns (`python -m benchmarks
# --only=input`, medians of 9): 1.19 times as many batches a second of digits and 1.34
# of 32 px, and 1.00 and 1.01 times as many images in training. No accelerator was
# measured: there, `auto` takes the devices.
FASTER = {"cpu": False}
# Share of a device's memory that training images may take where it is auto. The host
# holds a copy while they are sent.
SHARE = 0.1


class Device(NamedTuple):
    """What is known of the devices of a run.

    Attributes:
      platform: as JAX calls it; empty where it is not known.
      memory: of each of them, in bytes; None where it is not known.
    """

    platform: str
    memory: int | None


def check(choice: str, transform: Transform) -> None:
    """Refuses a transform that devices cannot do, where they are to do it.

    Args:
      choice: as in `lives_there`.
      transform: of the run.

    Raises:
      UserError: naming the field.
    """
    if choice == "yes" and transform.changes:
        raise _refused(f"{transform.changes}, which is done on the host")


def _refused(why: str) -> UserError:
    return UserError(
        f"data.on_device is yes, and the training images cannot live on the devices: "
        f"{why}; take data.on_device=auto"
    )


def obstacle(data: Dataset, transform: Transform) -> str:
    """Why no device can cut the batches of a run out; empty where devices can."""
    if transform.changes:
        return f"{transform.changes}, which is done on the host"
    height, width, channels = data.image_shape
    found = _pixels(data.train)
    if found is None:
        return (
            f"the images of {data.name} are not held in memory as one array (python -m "
            f"sws_jax prepare SOURCE OUT --size={height} makes one)"
        )
    if found[0].shape[1:] != (height, width, channels):
        high, wide = found[0].shape[1:3]
        return (
            f"its images of {high} x {wide} pixels are resized to {height} x {width} "
            f"on the host"
        )
    return ""


def bytes_of(images: int, shape: tuple[int, ...]) -> int:
    """Bytes that so many images take on each device.

    Args:
      images: of the training split.
      shape: height, width and channels.
    """
    return images * math.prod(shape)


def lives_there(
    choice: str, data: Dataset, transform: Transform, device: Device
) -> bool:
    """Whether the training images of a run live on its devices.

    Args:
      choice: yes, no or auto. auto takes the devices where they can do it, the
        platform is not known to be no faster for it (`FASTER`), and the images take no
        more than `SHARE` of the memory.
      data, transform, device: of the run.

    Raises:
      UserError: the choice is yes, and devices cannot do it.
    """
    if choice == "no":
        return False
    why = obstacle(data, transform)
    if choice == "yes":
        if why:
            raise _refused(why)
        return True
    if why or device.memory is None or not FASTER.get(device.platform, True):
        return False
    return bytes_of(len(data.train), data.image_shape) <= SHARE * device.memory


def lines(data: Dataset, on_device: bool) -> list[str]:
    """A line on where the training images live, and on their size, in memory.

    There is none for images that are read from files as they are needed.
    """
    if on_device:
        where, count = "each device", bytes_of(len(data.train), data.image_shape)
    elif base.is_decoded(data.train):
        where, count = "the host", _bytes_on_host(data.train)
    else:
        return []
    images = words.many(len(data.train), "training image")
    return [f"{data.name}: {images} in the memory of {where}, {words.size(count)}"]


def _bytes_on_host(split: Split) -> int:
    """Bytes of images that are held in memory."""
    if (found := _pixels(split)) is not None:
        return bytes_of(len(split), found[0].shape[1:])
    return sum(split.read(index)[0].nbytes for index in range(len(split)))


class Images:
    """The training images, whole on each device of a mesh.

    Args:
      data: whose training images devices can cut batches out of; see `obstacle`.
      transform: of the run.
      mesh: its devices.
    """

    def __init__(self, data: Dataset, transform: Transform, mesh: Mesh):
        found = _pixels(data.train)
        assert found is not None  # `obstacle` has said so.
        images, rows = found
        labels = data.train.labels
        self._mesh = mesh
        self._images, self._labels = sharding.put(
            (images[rows], np.asarray(labels, np.int32)),
            (sharding.replicated(mesh),) * 2,
        )
        padding = transform.padding if transform.crop == "padded" else 0
        self._cut = _cut_on(mesh, padding)

    def batch(self, size: int, draws: np.ndarray) -> dict[str, jax.Array]:
        """A global batch, split over the mesh.

        Args:
          size: images of it.
          draws: int32 [rows, 4] of `pipeline.train_draws`, of this process's rows.

        Returns:
          ``image`` uint8 [size, height, width, channels], ``label`` int32 [size].
        """
        placed = sharding.to_global(self._mesh, size, draws)
        return self._cut(self._images, self._labels, placed)


def batches(
    data: Dataset,
    transform: Transform,
    mesh: Mesh,
    *,
    on_device: bool,
    global_batch_size: int,
    **settings: Any,
) -> Iterator[tuple[dict[str, jax.Array], int]]:
    """The batches of a run on its devices, wherever its images live.

    Args:
      data, transform: of the run.
      mesh: its devices.
      on_device: whether the images live there; see `lives_there`.
      global_batch_size: images per step.
      **settings: seed, repeats, start_step and reading, as in `pipeline.train_batches`.

    Yields:
      A global batch, as of `Images.batch`, and how many of this process's rows replace
      an image that could not be read.

    Raises:
      Unreadable: as `pipeline.train_batches`.
    """
    settings["rows"] = sharding.own_rows(mesh, global_batch_size)
    settings["global_batch_size"] = global_batch_size
    if on_device:
        images = Images(data, transform, mesh)
        for draws in pipeline.train_draws(len(data.train), transform, **settings):
            yield images.batch(global_batch_size, draws), 0
        return
    settings["size"] = data.image_shape[:2]
    for rows in pipeline.train_batches(data.train, transform, **settings):
        skipped = int(rows.pop("skipped"))
        yield sharding.to_global(mesh, global_batch_size, rows), skipped


@functools.lru_cache(maxsize=16)
def _cut_on(mesh: Mesh, padding: int):
    """`cut`, compiled for a mesh, every device for its own rows of the batch."""
    everywhere, rows = PartitionSpec(), PartitionSpec(sharding.BATCH)
    own = jax.shard_map(
        functools.partial(cut, padding=padding),
        mesh=mesh,
        in_specs=(everywhere, everywhere, rows),
        out_specs=rows,
    )
    return jax.jit(own, out_shardings=sharding.batch_sharding(mesh))


def cut(
    images: jax.Array, labels: jax.Array, draws: jax.Array, *, padding: int
) -> dict[str, jax.Array]:
    """The images and labels of a batch, as `Transform` would make them.

    Args:
      images: uint8 [n, height, width, channels].
      labels: int32 [n].
      draws: int32 [rows, 4]; see `pipeline.train_draws`.
      padding: width of the black border, in pixels.
    """
    height, width = images.shape[1:3]
    index, top, left, flipped = draws.T[..., None]  # [rows, 1] each
    # Where each pixel of the batch comes from; outside of an image is its border.
    y = top - padding + jnp.arange(height)  # [rows, height]
    x = jnp.arange(width)
    x = left - padding + jnp.where(flipped, width - 1 - x, x)  # [rows, width]
    rows, columns = y.clip(0, height - 1), x.clip(0, width - 1)
    pixels = images[index[..., None], rows[:, :, None], columns[:, None, :]]
    inside = (rows == y)[:, :, None] & (columns == x)[:, None, :]
    return {
        "image": jnp.where(inside[..., None], pixels, jnp.uint8(0)),
        "label": labels[index[:, 0]],
    }


def _pixels(split: Split) -> tuple[np.ndarray, np.ndarray] | None:
    """An array of images and the rows of it that a split has.

    Returns:
      None where the images of the split are not in one array.
    """
    if isinstance(split, base.Subset):
        found = _pixels(split.split)
        if found is None:
            return None
        images, rows = found
        return images, rows[split.indices]
    if isinstance(split, arrays.Mapped):
        return split.images, split.rows
    if isinstance(split, base.Arrays) and isinstance(split.images, np.ndarray):
        return split.images, np.arange(len(split))
    return None
