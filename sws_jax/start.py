"""The network of a run before its first step: from a learngene, a file or a seed."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sws_jax import description as descriptions
from sws_jax import learngenes, networks, places, profiles, trees
from sws_jax.data import Dataset
from sws_jax.description import Description
from sws_jax.errors import UserError
from sws_jax.learngenes import base
from sws_jax.models import vit
from sws_jax.progress import say
from sws_jax.specs import AuxViTSpec, Spec, ViTSpec


def network_spec(config, shape: dict[str, Any]) -> ViTSpec | AuxViTSpec:
    """The network of `config.model`, for images and classes of that shape."""
    fields = dict(config.model)
    stages = tuple(fields.pop("stages"))
    if stages:
        fields["depth"] = sum(stages) if min(stages) > 0 else len(stages)
    net = ViTSpec(**fields, **shape)
    return AuxViTSpec(net, stages) if stages else net


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
    path = places.learngene_file(config, workdir)
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
    path = places.network_file(config, workdir)
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
