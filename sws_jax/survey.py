"""The networks that the runs of a job train, found without data and weights."""

from __future__ import annotations

from typing import Any

import ml_collections

from sws_jax import cost, paths, places, profiles, setup, specs, start, teacher, weights
from sws_jax.chain import Run
from sws_jax.description import Description
from sws_jax.errors import UserError
from sws_jax.specs import AuxViTSpec, Spec, ViTSpec


class Survey:
    """Reads what there is, assumes ImageNet where data is not here, and says which.

    Args:
      config: of the job.
      workdir: where ``run:NAME`` paths of the config are found.
      image_size, classes, images: instead of what is read or assumed.

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
    ):
        self.workdir = workdir
        self.known: dict[str, Any] = {}  # "run:NAME" -> spec
        self.notes: list[str] = []
        self.learngene: Spec | Description | None = None
        source = config.data.source
        if source == "digits":  # comes with a package, and is small
            data = setup.dataset(config)
            found, channels = len(data.train), data.image_shape[-1]
            own_classes, size = data.num_classes, image_size or data.image_shape[0]
        else:
            found, own_classes, channels = cost.IMAGENET_IMAGES, 1000, 3
            size = image_size or config.data.image_size
            if not size:
                raise UserError(
                    "this config takes images as large as its source has them, which "
                    "is not read here: say it as --config.data.image_size"
                )
            source += " is not read; assumed"
        self.images = images or found
        self.shape = dict(
            image_size=(size, size),
            channels=channels,
            num_classes=classes or own_classes,
        )
        self.note(
            f"{source}: {self.images:,} training images, {size} x {size} pixels, "
            f"{self.shape['num_classes']} classes, {channels} colour channel"
            + ("s" if channels > 1 else "")
        )

    def spec(self, run: Run) -> ViTSpec | AuxViTSpec:
        """Of the network that a run trains; those of earlier runs must be known."""
        found = self._spec(run.config)
        self.known[f"run:{run.name}"] = found
        return found

    def _spec(self, config) -> ViTSpec | AuxViTSpec:
        own = start.network_spec(config, self.shape)
        init = config.init
        if not (init.learngene or init.network):
            return own
        origin = self.known.get(init.learngene or init.network)
        about = None
        if origin is None:
            path = places.initial_file(config, self.workdir)
            if not paths.is_file(path):
                self.note(f"no file {path}: the networks are as the config has them")
                return own
            about = weights.describe(path)
            if init.learngene and about.kind != "learngene":
                raise UserError(
                    f"{path} holds a network ({about.spec.name}), not a learngene"
                )
            origin = about.spec
        net: Any = origin.net
        changes = {**self.shape, "drop_path": config.model.drop_path}
        if init.learngene:
            self.learngene = about or origin
            depth = len(init.plan) or sum(init.allotment) or config.model.depth
            net = profiles.find(config.profile).descendant(net)
            return net.replace(depth=depth, **changes)
        net = net.replace(**changes)
        return AuxViTSpec(net, origin.stages) if isinstance(origin, AuxViTSpec) else net

    def teacher(self, run: Run) -> Spec | None:
        """Of a distillation: an earlier run's, a file's, or the network of that name.

        None without distillation, and where nothing is known.
        """
        path = run.config.teacher.path
        if not path or not setup.needs_teacher(run.config):
            return None
        if path in self.known:
            return self.known[path]
        resolved = places.resolve(path, self.workdir)
        if paths.exists(resolved):
            return weights.describe(teacher.weights_file(resolved)).spec
        if is_name(path):
            changes = {n: self.shape[n] for n in ("num_classes", "channels")}
            return named(path, changes)
        return None

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


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
