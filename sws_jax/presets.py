"""The fields of a run's config, and the recipes that set them.

A config file names a job and sets fields; every field exists here first, with the
default that suits a network of ImageNet size. Groups have the names and fields of
the dataclasses they become: `augment` is `sws_jax.data.augment.Augment`, `loss` is
`sws_jax.losses.Loss`, and so on.
"""

from __future__ import annotations

import math

import ml_collections

from sws_jax import specs
from sws_jax.errors import UserError

# Default depths around an Aux-Net of 16 blocks: below the number of stages, below,
# at and above its own.
DEPTHS = (3, 6, 9, 12, 16, 20)
# The paper's tables (inferred: they fit its storage and training claims).
PAPER_DEPTHS = tuple(range(6, 16))

# Groups of a job that hold what one kind of run does otherwise. Any field of a run
# can be set in them, whether or not the config file does.
CHANGES = ("ancestor", "tune", "scratch")

COMPARE = ("untuned", "tune", "full")
# Fields that are tuples of any numbers; the other tuples hold whole ones.
FRACTIONS = ("mean", "std", "milestones")


def run() -> ml_collections.ConfigDict:
    """Every field of one training run."""
    return ml_collections.ConfigDict(
        dict(
            name="run",
            seed=0,
            # Images per step over all devices and hosts, and parts it is computed in.
            global_batch_size=512,
            accum_steps=1,
            # Moving average of the weights; 0 keeps none.
            ema=0.0,
            data=dict(
                source="digits",  # or the path of an .npz file
                val_fraction=0.1,  # of the training images, for every choice
                image_size=0,  # 0: as the source has it
                mean=(),  # empty: as the source says
                std=(),
            ),
            # `stages` make an Aux-Net; without them `depth` blocks make a ViT.
            model=dict(
                depth=12,
                stages=(),
                width=384,
                heads=6,
                mlp_ratio=4.0,
                patch_size=16,
                pool="mean",
                pool_order="norm_mean",
                norm_eps=1e-6,
                drop_path=0.1,
                weight_init="normal",
                init_std=0.02,
                pos_embed_std=0.02,
            ),
            compute=dict(dtype="float32", remat=False, unroll=1),
            # Where the weights come from: nothing (scratch), a weights file, or a
            # learngene with model.depth, a plan or an allotment. A path, or
            # run:NAME for an earlier run of the same chain.
            init=dict(network="", learngene="", plan=(), allotment=()),
            teacher=dict(path="", dtype="float32", min_accuracy=-1.0),
            loss=dict(kind="none", alpha=1.0, tau=1.0, reduction="batchmean"),
            augment=dict(
                crop_padding=0,
                flip=True,
                mixup=0.8,
                cutmix=1.0,
                mix_switch=0.5,
                mix_group=0,
                label_smoothing=0.1,
            ),
            optimizer=dict(
                weight_decay=0.05, b1=0.9, b2=0.999, eps=1e-8, clip_norm=0.0
            ),
            # rate is per `rate_batch` images (0: as it is); warmup_rate and minimum
            # are not scaled.
            schedule=dict(
                kind="cosine",
                total_epochs=100.0,
                rate=5e-4,
                rate_batch=512,
                warmup_epochs=5.0,
                warmup_rate=1e-6,
                minimum=1e-5,
            ),
            # Epochs between looks at the validation images; `milestones` are epochs
            # whose weights are scored on the test images too, at the end of the run.
            evaluation=dict(
                batch_size=512,
                every_epochs=1.0,
                milestones=(),
                select="last",  # or "best" on the validation images
            ),
            checkpoint=dict(every_epochs=1.0, keep_last=2, final=True),
            log_steps=50,
        )
    )


def job(kind: str, **fields) -> ml_collections.ConfigDict:
    """A run's fields and those of the chain it belongs to.

    Args:
      kind: "single", "descendants" or "sws"; see `sws_jax.chain`.
      **fields: of the chain.
    """
    config = run()
    config.job = kind
    config.update(ml_collections.ConfigDict(fields))
    return config


def digits(config: ml_collections.ConfigDict) -> None:
    """Handwritten digits on two CPU cores.

    Two things decide whether so small a net learns at all: weights that start at
    fan-in scale, and a position embedding that is not negligible beside the patches
    (a mean-pooled net is almost blind to position otherwise).
    """
    config.data.source = "digits"
    config.global_batch_size = 64
    config.model.update(
        width=64,
        heads=4,
        patch_size=4,
        weight_init="fan_in",
        pos_embed_std=0.5,
    )
    config.augment.update(crop_padding=1, flip=False, mixup=0.0, cutmix=0.0)
    config.schedule.update(rate_batch=0, warmup_rate=0.0, warmup_epochs=2.0)
    config.evaluation.update(batch_size=256, every_epochs=5.0)
    config.checkpoint.update(every_epochs=20.0)
    config.log_steps = 100


def deit(config: ml_collections.ConfigDict) -> None:
    """DeiT's recipe for ImageNet at 224 px, as SWS uses it (2404.16897, section 4.1).

    AdamW, rate 5e-4 per 512 images, cosine after 5 epochs of warm-up, mixup and
    cutmix, label smoothing, stochastic depth, a moving average of the weights that
    is kept and not used: `run` has these as its defaults, but for the average.
    """
    config.ema = 0.99996
    config.data.val_fraction = 0.01  # some 12,800 images of ImageNet are plenty
    config.checkpoint.update(every_epochs=1.0)


def tuning(name: str) -> dict:
    """The schedule of a descendant's short fine-tuning, by variant.

    Ti, S and B as published: 10 epochs, no warm-up, minimum 1e-6, rate 5e-5 (1e-5
    for B) per 512 images.
    """
    if name == "digits":
        # Of 3e-4, 1e-3 and 3e-3, the least validation loss over depths 6, 12, 20.
        return dict(total_epochs=5.0, rate=3e-4, warmup_epochs=0.0, minimum=1e-5)
    rate = 1e-5 if name.startswith("B") else 5e-5
    return dict(total_epochs=10.0, rate=rate, warmup_epochs=0.0, minimum=1e-6)


def recipe(config: ml_collections.ConfigDict, name: str, image_size: int) -> None:
    """What a variant sets: network size, data, augmentation, schedule.

    Args:
      config: changed in place.
      name: "digits" (the small recipe), or Ti/16, S/16, B/16.
      image_size: in pixels; 0 takes 224 for a DeiT, and the source's own otherwise.
    """
    if name == "digits":
        digits(config)
        config.data.image_size = image_size
        return
    variant(config, name)
    deit(config)
    config.data.image_size = image_size or 224


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
    """Width, heads and patch of ``Ti/16``, ``S/16`` or ``B/16``."""
    sizes = {"Ti": "tiny", "S": "small", "B": "base"}
    size, _, patch = text.partition("/")
    if size not in sizes or not patch.isdecimal():
        raise UserError(
            f"there is no variant {text!r}: it is digits, or one of {', '.join(sizes)} "
            f"and a patch size, as in S/16"
        )
    width, heads = specs.SIZES[sizes[size]]
    config.model.update(width=width, heads=heads, patch_size=int(patch))


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
        key, found, text = part.partition("=")
        if key not in defaults or not found:
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
