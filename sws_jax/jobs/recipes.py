"""The fields of a run's config, and the recipes that set them.

A config file names a job and sets fields. Every field is in the table of
`sws_jax.jobs.fields`, with the default that suits a network of ImageNet size. Groups
have the names and fields of the dataclasses they become: `augment` is
`sws_jax.data.augment.Augment`, `loss` is `sws_jax.methods.objectives.Loss`, and so on.
"""

from __future__ import annotations

import math

import ml_collections

from sws_jax import specs
from sws_jax.errors import UserError
from sws_jax.estimate.budgets import SMALL, Budget, budget
from sws_jax.jobs import fields
from sws_jax.models import profiles

# Groups of a job with the changes for one kind of its runs. Any field of a run can be
# set in them, whether or not the config file does.
CHANGES = ("ancestor", "tune", "scratch")

# Fields of `model` that say how its weights begin, and not what it computes.
BEGINNINGS = ("weight_init", "init_std", "patch_bias_init", "pos_embed_std")


def run() -> ml_collections.ConfigDict:
    """Every field of one training run."""
    return ml_collections.ConfigDict(fields.tree())


def completed(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A run's config with the fields that are newer than the software that wrote it."""
    full = config.copy_and_resolve_references().unlock()

    def complete(mine, default):
        for name, value in default.items():
            if name not in mine:
                mine[name] = value
            elif isinstance(value, ml_collections.ConfigDict):
                complete(mine[name], value)

    complete(full, run())
    return full


def job(kind: str, **chain) -> ml_collections.ConfigDict:
    """A run's fields and those of the chain it belongs to.

    Args:
      kind: "single", "descendants" or "chain"; see `sws_jax.jobs.rows`.
      **chain: its own fields.
    """
    config = run()
    config.job = kind
    config.update(ml_collections.ConfigDict(chain))
    return config


def tuning(budget: Budget) -> dict:
    """The schedule of a descendant's short fine-tuning: no warm-up."""
    return dict(
        total_epochs=budget.tune_epochs,
        rate=budget.tune_rate,
        warmup_epochs=0.0,
        minimum=budget.tune_minimum,
    )


def last(config: ml_collections.ConfigDict, epochs: float) -> None:
    """Sets how long a run is; no more than a fifth of it is warm-up."""
    warmup = min(config.schedule.warmup_epochs, 0.2 * epochs)
    config.schedule.update(total_epochs=epochs, warmup_epochs=warmup)


def small(config: ml_collections.ConfigDict) -> None:
    """Small images on two CPU cores.

    Two things decide whether so small a net learns at all: weights that start at
    fan-in scale, and a position embedding that is not negligible beside the patches
    (a mean-pooled net is almost blind to position otherwise).
    """
    config.global_batch_size = 64
    config.model.update(
        width=64,
        heads=4,
        patch_size=4,
        weight_init="fan_in",
        pos_embed_std=0.5,
    )
    config.transform.update(crop="padded", padding=1, flip=False)
    config.augment.update(mixup=0.0, cutmix=0.0)
    # On a CPU computing a block again is quicker than keeping what it computed.
    config.compute.remat = True
    config.schedule.update(rate_batch=0, warmup_rate=0.0, warmup_epochs=2.0)
    config.evaluation.update(batch_size=256, every_epochs=5.0)
    config.checkpoint.update(every_epochs=20.0)
    config.log_steps = 100


def pixels32(config: ml_collections.ConfigDict) -> None:
    """Natural images of 32 px: 16 patches, mirrored and shifted."""
    small(config)
    config.data.source = ""
    config.global_batch_size = 128
    config.model.patch_size = 8
    config.transform.update(padding=4, flip=True)
    config.checkpoint.update(every_epochs=5.0)


def deit(config: ml_collections.ConfigDict) -> None:
    """DeiT's recipe for ImageNet at 224 px, as SWS uses it (2404.16897, section 4.1).

    AdamW, rate 5e-4 per 512 images, cosine after 5 epochs of warm-up, mixup and
    cutmix, label smoothing and stochastic depth are the defaults of `run`. Here: random
    resized crops, RandAugment (2 of 15 operations, magnitude 9 +- 0.5), random erasing,
    mixup in groups of 128 as on one published GPU, evaluation on the centre of images
    resized to size / 0.875, and a moving average of the weights that is kept and not
    used.
    """
    config.ema = 0.99996
    # Some 12,800 images of ImageNet are plenty.
    config.data.update(val_fraction=0.01, eval_crop=0.875)
    config.transform.update(crop="resized", randaugment=2)
    config.augment.update(erase=0.25, mix_group=128)
    config.checkpoint.update(every_epochs=1.0)


def official(config: ml_collections.ConfigDict) -> None:
    """What the released PyTorch code does otherwise, in networks and in training.

    Networks average their tokens before the last norm (an Aux-Net after it, with 12
    heads where it is 384 wide and a LayerNorm epsilon of 1e-5: `auxiliary`), and their
    patch embedding's bias starts as PyTorch's convolutions have theirs. Three augmented
    copies of each drawn image, the cosine set once per epoch and one epoch late, a
    distillation loss divided by batch x classes, and a moving average that starts from
    the weights before the learngene was loaded.
    """
    config.profile = "official"
    config.model.pool_order = "mean_norm"
    config.model.patch_bias_init = profiles.find("official").patch_bias_init
    config.data.repeats = 3
    config.schedule.kind = "cosine_per_epoch"
    config.loss.reduction = "per_class"
    config.ema_start = "seed"


def auxiliary(config: ml_collections.ConfigDict, stages: tuple[int, ...]) -> dict:
    """Makes a job's network the Aux-Net that its profile trains.

    Args:
      config: changed in place; its network is that of the descendants.
      stages: of the Aux-Net.

    Returns:
      Changes that lead back, for the runs of other networks in the same job.
    """
    model = config.model
    names = ("width", "heads", "norm_eps", "pool_order")
    own = {name: model[name] for name in names}
    # Of no image size: an epsilon, an order and heads do not depend on it.
    net = specs.ViTSpec(image_size=model.patch_size, patch_size=model.patch_size, **own)
    aux_net = profiles.find(config.profile).auxiliary(net)
    changed = {n: getattr(aux_net, n) for n in names if getattr(aux_net, n) != own[n]}
    model.update(stages=stages, **changed)
    return dict(stages=(), **{name: own[name] for name in changed})


def recipe(config: ml_collections.ConfigDict, arg: ml_collections.ConfigDict) -> Budget:
    """What a variant sets: network size, data, augmentation.

    Args:
      config: changed in place.
      arg: a config's arguments, as `parse_recipe` gives them.

    Returns:
      The variant's durations and rates.
    """
    name, default_size = arg.variant, 0
    if name == "digits":
        small(config)
    elif name == "32px":
        pixels32(config)
        default_size = 32
    else:
        variant(config, name)
        deit(config)
        default_size = 224
    profiles.find(arg.profile)
    if arg.profile == "official":
        official(config)
    config.data.source = arg.dataset or config.data.source
    if not config.data.source:
        require(arg, "dataset")
    config.data.image_size = arg.image_size or default_size
    if name not in SMALL and config.data.image_size <= 32:
        # As DeiT does with small images: shifted and whole, in place of cut and scaled.
        config.data.eval_crop = 1.0
        config.transform.update(crop="padded", padding=4)
    return budget(name)


def methods(arg: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The methods that a config's arguments ``method`` and ``methods`` name.

    Raises:
      UserError: both are there.
    """
    if arg.method and arg.methods:
        raise UserError(
            f"method={arg.method} and methods={arg.methods}: give one of the two"
        )
    return tuple(arg.methods.split("-")) if arg.methods else (arg.method or "sws",)


def slug(name: str) -> str:
    """A variant as part of a run's name: S/16 as s16."""
    return name.replace("/", "").lower()


def require(arg: ml_collections.ConfigDict, *keys: str) -> None:
    """Refuses a config whose argument has no sensible default and was not given."""
    for key in keys:
        if not arg[key]:
            raise UserError(
                f"this config needs {key}=...: --config=FILE:{key}=PATH "
                f"(it takes {', '.join(sorted(arg))})"
            )


def variant(config: ml_collections.ConfigDict, text: str) -> None:
    """Sets width, heads and patch of ``Ti/16``, ``S/16`` or ``B/16``.

    Raises:
      UserError: there is no such variant.
    """
    sizes = {"Ti": "tiny", "S": "small", "B": "base"}
    size, _, patch = text.partition("/")
    if size not in sizes or not patch.isdecimal():
        raise UserError(
            f"there is no variant {text!r}: it is {', '.join(SMALL)}, or one of "
            f"{', '.join(sizes)} and a patch size, as in S/16"
        )
    width, heads = specs.SIZES[sizes[size]]
    config.model.update(width=width, heads=heads, patch_size=int(patch))


def parse_recipe(arg: str | None, **defaults) -> ml_collections.ConfigDict:
    """`parse`, with the arguments that say which recipe and which data.

    ``variant`` digits, 32px, Ti/16, S/16 or B/16; ``dataset`` (empty: the variant's
    own); ``image_size`` (0: 224 for a DeiT, 32 for 32px, else the source's own);
    ``profile`` consistent or official (see the function of that name).
    """
    return parse(
        arg,
        variant="digits",
        dataset="",
        image_size=0,
        profile="consistent",
        **defaults,
    )


def parse(arg: str | None, **defaults) -> ml_collections.ConfigDict:
    """Reads ``key=value,key=value`` against typed defaults.

    Args:
      arg: what follows the colon in ``--config=FILE:ARG``.
      **defaults: the keys that the config knows; a value has its default's type,
        and tuples of integers are written like 3-3-4-3-3.

    Raises:
      UserError: an unknown key or a value of another type.
    """
    values = ml_collections.ConfigDict(defaults)
    for part in filter(None, (arg or "").split(",")):
        key, equals, text = part.partition("=")
        if key not in defaults or not equals:
            raise UserError(
                f"this config has no argument {part!r}; it takes "
                + (", ".join(f"{k}=..." for k in defaults) or "none")
            )
        values[key] = _typed(key, text, defaults[key])
    return values


def _typed(key: str, text: str, default):
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if isinstance(default, tuple):
            return tuple(int(n) for n in text.split("-"))
        value = type(default)(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
        return value
    except (ValueError, KeyError):
        form = {bool: "true or false", tuple: "like 3-3-4-3-3", int: "a whole number"}
        wanted = form.get(type(default), "a number")
        raise UserError(f"argument {key}={text} must be {wanted}") from None
