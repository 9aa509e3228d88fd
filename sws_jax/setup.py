"""From a run's config to the objects that it names."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import operator
import os
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from sws_jax import (
    configs,
    learngenes,
    networks,
    paths,
    presets,
    profiles,
    sharding,
    teacher,
    trees,
)
from sws_jax import description as descriptions
from sws_jax.data import Dataset, images, load_dataset
from sws_jax.data.augment import Augment
from sws_jax.data.base import Normalization
from sws_jax.data.pipeline import Reading, epoch_images
from sws_jax.data.transforms import Fit, Transform
from sws_jax.description import Description
from sws_jax.errors import UserError
from sws_jax.learngenes import base
from sws_jax.losses import Loss
from sws_jax.models import vit
from sws_jax.optim import Optimizer, Schedule, scaled_rate
from sws_jax.progress import say
from sws_jax.specs import AuxViTSpec, Compute, Spec, ViTSpec
from sws_jax.step import Recipe

LEARNGENE = "learngene.safetensors"
RUN = "run:"
_ALL = 2**31 - 1


def resolve(path: str, workdir: str) -> str:
    """``run:NAME`` as the directory of that run; any other path as it is."""
    if path.startswith(RUN):
        return os.path.join(workdir, path.removeprefix(RUN))
    return path


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses what needs neither data nor files to be seen as wrong.

    Raises:
      UserError: naming the field.
    """
    if not config.name or os.path.basename(config.name) != config.name:
        raise UserError(
            f"name is the run's directory in the work directory, and cannot be "
            f"{config.name!r}"
        )
    base.check_seed(config.seed)
    if config.init.head not in presets.HEADS:
        raise UserError(
            f"init.head {config.init.head!r} is not one of {', '.join(presets.HEADS)}"
        )
    if not 0 <= config.ema < 1:
        raise UserError(f"ema must be in [0, 1), and is {config.ema}")
    profiles.find(config.profile)
    if config.ema_start not in ("weights", "seed"):
        raise UserError(f"ema_start {config.ema_start!r} is not one of weights, seed")
    if config.log_steps < 1:
        raise UserError(f"log_steps must be at least 1, and is {config.log_steps}")
    if config.evaluation.select not in ("last", "best"):
        raise UserError(
            f"evaluation.select {config.evaluation.select!r} is not one of last, best"
        )
    if any(not epochs >= 0 for epochs in config.evaluation.milestones):
        raise UserError(
            f"evaluation.milestones are epochs of at least 0, and not "
            f"{config.evaluation.milestones}"
        )
    for name, least in (("global_batch_size", 1), ("accum_steps", 1)):
        if config[name] < least:
            raise UserError(f"{name} must be at least {least}, and is {config[name]}")
    if config.evaluation.batch_size < 1:
        raise UserError(
            f"evaluation.batch_size must be at least 1, and is "
            f"{config.evaluation.batch_size}"
        )
    if not config.data.memory_gib >= 0:
        raise UserError(
            f"data.memory_gib must be at least 0, and is {config.data.memory_gib}"
        )
    for made, group in (
        (Compute, config.compute),
        (Transform, config.transform),
        (Augment, config.augment),
        (Loss, config.loss),
        (Optimizer, config.optimizer),
    ):
        made(**group)
    images.check_decoder(config.data.decoder)
    if config.data.image_size < 0:
        raise UserError(
            f"data.image_size must be at least 1, or 0 for the images' own, and is "
            f"{config.data.image_size}"
        )
    Augment(**config.augment).check_batch(config.global_batch_size)
    # Whatever the number of images: a million stand for it.
    schedule(config, Durations(2**20, config.global_batch_size))
    reading(config)
    Fit((1, 1), config.data.eval_crop)
    epoch_images(1, config.data.repeats)
    patch = config.model.patch_size
    network_spec(config, dict(image_size=(patch, patch), channels=1, num_classes=1))
    _check_finite(config)


def _check_finite(config: ml_collections.ConfigDict) -> None:
    """Refuses NaN and infinity, but for memory, of which there may be no limit."""
    for field in configs.fields(config):
        value = functools.reduce(operator.getitem, field.split("."), config)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                if field != "data.memory_gib":
                    raise UserError(f"{field} must be finite, and is {number}")


def network_spec(config, shape: dict[str, Any]) -> ViTSpec | AuxViTSpec:
    """The network of `config.model`, for images and classes of that shape."""
    fields = dict(config.model)
    stages = tuple(fields.pop("stages"))
    if stages:
        fields["depth"] = sum(stages) if min(stages) > 0 else len(stages)
    net = ViTSpec(**fields, **shape)
    return AuxViTSpec(net, stages) if stages else net


def inputs(config, workdir: str) -> dict[str, str]:
    """A digest of every weights file that a run starts from, by field."""
    named = {
        "init.learngene": learngene_file(config, workdir),
        "init.network": _network_file(config, workdir),
        "teacher.path": "",
    }
    if config.teacher.path and needs_teacher(config):
        named["teacher.path"] = teacher.weights_file(
            resolve(config.teacher.path, workdir)
        )
    found = {}
    for field, path in named.items():
        if path and paths.is_file(path):
            with open(paths.here(path), "rb") as file:
                found[field] = hashlib.file_digest(file, "blake2b").hexdigest()[:32]
    return found


def learngene_file(config, workdir: str) -> str:
    path = resolve(config.init.learngene, workdir)
    return os.path.join(path, LEARNGENE) if paths.is_dir(path) else path


def initial_file(config, workdir: str) -> str:
    """The weights file that a run starts from; empty where it starts from a seed."""
    named = config.init.learngene
    return learngene_file(config, workdir) if named else _network_file(config, workdir)


def _network_file(config, workdir: str) -> str:
    path = resolve(config.init.network, workdir)
    return teacher.weights_file(path) if path else path


def dataset(config: ml_collections.ConfigDict) -> Dataset:
    data = config.data
    found = load_dataset(
        data.source,
        val_fraction=data.val_fraction,
        image_size=data.image_size or None,
        mean=tuple(data.mean),
        std=tuple(data.std),
        directory=data.directory,
        cache=data.cache,
        memory_gib=data.memory_gib,
        decoder=data.decoder,
        unreadable=data.unreadable,
    )
    transform(config).check_channels(found.image_shape[-1])
    return found


def reading(config: ml_collections.ConfigDict) -> Reading:
    data = config.data
    return Reading(data.threads, data.workers, data.unreadable)


def transform(config: ml_collections.ConfigDict) -> Transform:
    return Transform(**config.transform)


@dataclasses.dataclass(frozen=True)
class Durations:
    """Epochs of a config as steps: the one place that converts them.

    An epoch is as many images as there are, and a step a global batch of them; a
    duration of some epochs is the nearest whole number of steps.
    """

    images: int
    global_batch_size: int

    def steps(self, epochs: float) -> int:
        if not 0 <= epochs < math.inf:
            raise UserError(
                f"durations are epochs of at least 0, and one of them is {epochs}"
            )
        return round(epochs * self.images / self.global_batch_size)

    def every(self, epochs: float) -> int:
        """An interval: never below one step; 0 epochs means never."""
        return max(self.steps(epochs), 1) if epochs > 0 else _ALL


def durations(config: ml_collections.ConfigDict, data: Dataset) -> Durations:
    images = epoch_images(len(data.train), config.data.repeats)
    return Durations(images, config.global_batch_size)


def schedule(config: ml_collections.ConfigDict, durations: Durations) -> Schedule:
    fields = config.schedule
    if 0 < fields.total_epochs < fields.warmup_epochs:
        raise UserError(
            f"schedule.warmup_epochs {fields.warmup_epochs:g} is longer than the run, "
            f"whose schedule.total_epochs is {fields.total_epochs:g}"
        )
    return Schedule(
        kind=fields.kind,
        peak=scaled_rate(fields.rate, config.global_batch_size, fields.rate_batch),
        total_steps=durations.steps(fields.total_epochs),
        warmup_steps=durations.steps(fields.warmup_epochs),
        warmup_rate=fields.warmup_rate,
        minimum=fields.minimum,
        steps_per_epoch=Fraction(durations.images, durations.global_batch_size),
    )


def check_batches(config, mesh: Mesh) -> None:
    """Refuses batches that do not divide over a mesh."""
    for name, size, parts in (
        ("global_batch_size", config.global_batch_size, config.accum_steps),
        ("evaluation.batch_size", config.evaluation.batch_size, 1),
    ):
        sharding.check_batch(name, size, mesh, parts)


def mesh_remarks(config, spec: Spec, mesh: Mesh) -> list[str]:
    """What does not fall apart over a mesh, in words."""
    found = []
    boxed = networks.abstract_params(spec, boxed=True)
    if left := sharding.undivided(boxed, mesh):
        found.append(f"replicated, as they do not divide: {', '.join(left)}")
    mixing, size = config.augment, config.global_batch_size
    group, own = mixing.mix_group or size, size // sharding.shard_count(mesh)
    if (mixing.mixup or mixing.cutmix) and own % group:
        found.append(
            f"mixup groups of {group} images span devices, which pass them on; an "
            f"augment.mix_group that divides {own} keeps them"
        )
    return found


def needs_teacher(config) -> bool:
    """Whether a run is distilled."""
    return Loss(**config.loss).needs_teacher


def recipe(config, spec: Spec, normalization: Normalization) -> Recipe:
    """The static part of a step, of images that are normalised so."""
    assert isinstance(spec, ViTSpec | AuxViTSpec)  # `start` makes no other
    made = Recipe(
        spec=spec,
        normalization=normalization,
        compute=Compute(**config.compute),
        augment=Augment(**config.augment),
        loss=Loss(**config.loss),
        optimizer=Optimizer(**config.optimizer),
        accum_steps=config.accum_steps,
        ema=config.ema,
    )
    made.augment.check_batch(config.global_batch_size)
    if made.loss.needs_teacher and not config.teacher.path:
        raise UserError(
            f"loss.kind {made.loss.kind!r} needs a teacher: give its weights file or "
            f"run directory as teacher.path"
        )
    return made


def load_teacher(config, data: Dataset, workdir: str):
    """The frozen teacher of a run, or None."""
    if not needs_teacher(config):
        return None
    path = resolve(config.teacher.path, workdir)
    found = teacher.load_teacher(path, dtype=config.teacher.dtype)
    teacher.check_classes(found, data)
    return found


def start(
    config, data: Dataset, workdir: str, tell: Callable[[str], None] = say
) -> networks.Network:
    """The network of a run before its first step, from learngene, file or seed.

    Weights are float32, whatever a file holds.

    Args:
      config: of the run.
      data: what it trains on.
      workdir: where ``run:NAME`` paths are found.
      tell: takes a line on what is not taken over from a file.

    Raises:
      UserError: the config contradicts itself, the data or the file it names.
    """
    if config.init.learngene and config.init.network:
        raise UserError("init takes a learngene or a network, not both")
    if config.init.learngene:
        return _from_learngene(config, data, workdir, tell)
    if config.init.network:
        return _from_network(config, data, workdir, tell)
    return _from_seed(config, data)


def _float32(path: str, params: trees.Tree) -> trees.Tree:
    """The weights of a file for a run to start from.

    Raises:
      UserError: some of them are not numbers.
    """
    found = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    for name, leaf in trees.flatten(found).items():
        if not np.isfinite(leaf).all():
            raise UserError(
                f"{path} holds values in {name} that are not numbers: no run can start "
                f"from it; train it again"
            )
    return found


def _from_seed(config, data: Dataset) -> networks.Network:
    spec = network_spec(config, _shape_of(data))
    _check_memory(spec)
    params = vit.init_params(spec.build(), jax.random.key(config.seed))
    return networks.Network(spec, params, _describe(config, data, spec))


def _check_memory(spec: Spec) -> None:
    """Refuses a network whose weights this host cannot hold, where they are made.

    (JAX may wait for ever for an array on a CPU that found no room.)
    """
    count = trees.count(networks.abstract_params(spec))
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 4 * count > there:
        raise UserError(
            f"{spec.name} has {count:,} parameters, {4 * count / 2**30:,.0f} GiB, and "
            f"this host has {there / 2**30:,.0f} GiB of memory: take a smaller model"
        )


def _from_learngene(config, data: Dataset, workdir: str, tell) -> networks.Network:
    path = learngene_file(config, workdir)
    gene = learngenes.load_learngene(path)
    origin = gene.description
    if config.model.stages:
        raise UserError(
            "a learngene initialises descendants, which share nothing: leave "
            "model.stages empty"
        )
    request: dict[str, Any] = {"depth": config.model.depth}
    if config.init.plan or config.init.allotment:
        request = {
            name: tuple(config.init[name])
            for name in ("plan", "allotment")
            if config.init[name]
        }
    if origin.profile != config.profile:
        raise UserError(
            f"{path} is of the {origin.profile} profile and the run of the "
            f"{config.profile} one: give the config profile={origin.profile}"
        )
    found = learngenes.expand(
        dataclasses.replace(gene, params=_float32(path, gene.params)),
        **request,
        num_classes=None
        if _keeps_head(config, origin, data, tell)
        else data.num_classes,
        image_size=data.image_shape[:2],
        seed=config.seed,
    )
    _check_channels(path, found.spec.net.channels, data)
    _tell_pixels(config, origin, data, tell)
    spec = found.spec.net.replace(drop_path=config.model.drop_path)
    description = _describe(config, data, spec).replace(
        method=origin.method,
        stages=origin.stages,
        plan=found.plan,
        teacher=origin.teacher,
    )
    return networks.Network(spec, found.params, description)


def _keeps_head(config, origin: Description, data: Dataset, tell) -> bool:
    """Whether a run takes over the head of a file; it tells so."""
    kept, reason = _head(config, origin, data)
    tell(f"{config.name}: head {'inherited' if kept else 'fresh'}: {reason}")
    return kept


def _tell_pixels(config, origin: Description, data: Dataset, tell) -> None:
    """Tells where a file has seen other pixels than those of the run."""
    if origin.normalization != data.normalization:
        was, now = origin.normalization, data.normalization
        tell(
            f"{config.name}: pixels of mean {now.mean} and deviation {now.std}, where "
            f"these weights have seen {was.mean} and {was.std} (data.mean and data.std "
            f"set them)"
        )


def _head(config, origin: Description, data: Dataset) -> tuple[bool, str]:
    """Whether the head of a file is for the classes of a dataset, and why."""
    theirs, classes = origin.net.num_classes, data.num_classes
    if config.init.head == "fresh":
        return False, "as init.head says"
    if theirs != classes:
        if config.init.head == "keep":
            raise UserError(
                f"init.head=keep: the file has {theirs} classes and {data.name} has "
                f"{classes}"
            )
        return False, f"it has {theirs} classes and {data.name} has {classes}"
    if config.init.head == "keep":
        return True, "as init.head says"
    otherwise = " (--config.init.head=keep takes it over)"
    if profiles.find(config.profile).head_by == "classes":
        if not origin.class_names:
            return False, f"its classes have no names to compare{otherwise}"
        same = origin.class_names == data.class_names
        named = "the same" if same else "other"
        reason = f"the classes of {data.name} have {named} names"
        return same, reason + ("" if same else otherwise)
    # The released code inherits the head on ImageNet alone, where it was trained.
    same = _set_name(origin.dataset) == _set_name(data.name)
    known = f"was trained on {origin.dataset}" if origin.dataset else "names no dataset"
    reason = f"its file {known}, and this is {data.name}"
    return same, reason + ("" if same else otherwise)


def _set_name(name: str) -> str:
    """Of a dataset; ImageNet has many."""
    known = re.fullmatch(r"(imagenet|ilsvrc)[-_]?(2012|1k)?", name.lower())
    return "imagenet" if known else name


def _from_network(config, data: Dataset, workdir: str, tell) -> networks.Network:
    path = _network_file(config, workdir)
    found = networks.load_network(path)
    assert found.description is not None
    old, params = found.description.vit, dict(_float32(path, found.params))
    if old.distilled:
        raise UserError(
            f"{path} holds a network of two heads, one distilled: it can teach, "
            f"and no run starts from it"
        )
    _check_channels(path, old.channels, data)
    _tell_pixels(config, found.description, data, tell)
    net = old.replace(
        num_classes=data.num_classes,
        image_size=data.image_shape[:2],
        drop_path=config.model.drop_path,
    )
    profile = profiles.find(config.profile)
    params["pos_embed"] = base.resize_pos_embed(
        params["pos_embed"], old, net, antialias=profile.antialias
    )
    if not _keeps_head(config, found.description, data, tell):
        like = params["norm"]["scale"]
        params["head"] = base.fresh_head(net, config.seed, like=like)
    stages = found.description.stages
    spec = AuxViTSpec(net, stages) if isinstance(found.spec, AuxViTSpec) else net
    return networks.Network(spec, params, _describe(config, data, spec))


def ema_start(config, spec: Spec) -> trees.Tree | None:
    """Where the moving average of the weights starts, if not from the weights."""
    if not config.ema or config.ema_start == "weights":
        return None
    params = vit.init_params(spec.build(), jax.random.key(config.seed))
    if (config.init.learngene or config.init.network) and "head" in params:
        # A head that is not inherited is the same in both.
        like = params["norm"]["scale"]
        assert isinstance(spec.net, ViTSpec)
        params["head"] = base.fresh_head(spec.net, config.seed, like=like)
    return params


def _check_channels(path: str, channels: int, data: Dataset) -> None:
    if channels != data.image_shape[-1]:
        raise UserError(
            f"{path} takes images of {channels} channels, and {data.name} has "
            f"{data.image_shape[-1]}"
        )


def _shape_of(data: Dataset) -> dict[str, Any]:
    return dict(
        image_size=data.image_shape[:2],
        channels=data.image_shape[-1],
        num_classes=data.num_classes,
    )


def _describe(config, data: Dataset, spec) -> Description:
    auxiliary = isinstance(spec, AuxViTSpec)
    return Description(
        kind="aux_net" if auxiliary else "network",
        net=spec.net,
        stages=spec.stages if auxiliary else (),
        method="sws" if auxiliary else "",
        normalization=data.normalization,
        dataset=data.name,
        class_names=data.class_names,
        profile=config.profile,
        seed=config.seed,
        versions=descriptions.versions(),
        eval_crop=config.data.eval_crop,
        val_fraction=config.data.val_fraction,
    )
