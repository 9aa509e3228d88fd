"""Every field of a config, in one table: default, range, meaning, and what may change.

What checks, lists or compares fields reads it: `sws_jax.jobs.recipes.run` makes a
config of it, `sws_jax.jobs.check.check` refuses what is out of range.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from sws_jax.arguments import Range
from sws_jax.errors import UserError
from sws_jax.specs import base, limits, vit

# Whether a run that has begun may go on with another value: HARMLESS ones change how it
# is computed or watched, and not what it computes; CHANGEABLE ones do change it, and
# its result says from which step on they were what. (A finished run is asked for with
# its own.)
HARMLESS, CHANGEABLE = "harmless", "changeable"


@dataclasses.dataclass(frozen=True)
class Field:
    """One field.

    Attributes:
      default: its value, whose type is the field's.
      meaning: in a line, where the name does not say it.
      range: of a number, or of each number of a tuple.
      choices: that a text may be; none: any text.
      item: type of what a tuple holds; float ones may be whole too.
      is_span: a tuple of two, the smaller one first.
      resume: HARMLESS, CHANGEABLE, or empty.
    """

    default: Any
    meaning: str = ""
    range: Range | None = None
    choices: tuple[str, ...] = ()
    item: type = int
    is_span: bool = False
    resume: str = ""

    def check(self, name: str, value: Any) -> None:
        """Refuses a value that the field cannot have.

        Raises:
          UserError: naming the field.
        """
        if self.choices and value not in self.choices:
            raise UserError(f"{name} {value!r} is not one of {', '.join(self.choices)}")
        if isinstance(self.default, tuple):
            self._check_tuple(name, tuple(value))
        elif self.range:
            self.range.check(name, value)

    def takes(self, value: Any) -> bool:
        """Whether something may stand in the field's tuple, by its type."""
        kinds = (int, float) if self.item is float else (self.item,)
        return type(value) in kinds

    @property
    def items(self) -> str:
        """What the field's tuple holds, in words."""
        return {float: "numbers", int: "whole numbers", str: "names"}[self.item]

    def _check_tuple(self, name: str, value: tuple) -> None:
        if not all(map(self.takes, value)):
            raise UserError(f"{name} takes {self.items}, and is {value}")
        if self.is_span and (len(value) != 2 or value[0] > value[1]):
            raise UserError(
                f"{name} must be two numbers, the smaller one first, and is {value}"
            )
        for number in value if self.range else ():
            self.range.check(name, number)  # type: ignore[union-attr]


_SHARE = Range(0, 1)
_BELOW_ONE = Range(0, 1, open_high=True)
_EPOCHS = Range(0, 1e6)
# (Large ones diverge, which a run says of itself.)
_RATE = Range(0, 1e30)
_DEVIATION = Range(0, 1e3)
_COUNT = Range(1, 2**20)
_DEPTH = Range(1, 1024)
_AXIS = Range(-1, 2**20)

# Groups have the names and fields of the dataclasses that they become.
RUN: dict[str, Field] = {
    "name": Field("run", "its directory in the work directory"),
    "seed": Field(0, "of weights, order and augmentation", Range(0, 2**32 - 1)),
    "profile": Field(
        "consistent",
        "which reading of the method: sws_jax.models.profiles. It decides what expands "
        "to what; the fields that it sets besides are set by `official`",
    ),
    "global_batch_size": Field(
        512, "images per step over all devices and hosts", _COUNT
    ),
    "accum_steps": Field(1, "parts that a batch is computed in", _COUNT),
    "mesh.data": Field(
        -1, "devices along this axis; -1 is all left", _AXIS, resume=HARMLESS
    ),
    "mesh.fsdp": Field(1, "as mesh.data", _AXIS, resume=HARMLESS),
    "mesh.tensor": Field(1, "as mesh.data", _AXIS, resume=HARMLESS),
    "mesh.dry_run": Field(
        "",
        "devices that are not here (8, v5e-256, 8xH100): what each would hold and send "
        "is printed, and nothing is run",
        resume=HARMLESS,
    ),
    "ema": Field(0.0, "moving average of the weights; 0 keeps none", _BELOW_ONE),
    "ema_start": Field(
        "weights",
        "it starts from the weights before the first step, or (seed) from those "
        "before any were loaded",
        choices=("weights", "seed"),
    ),
    "data.source": Field(
        "digits", "or a path, or tfds:NAME: sws_jax.data.load_dataset"
    ),
    "data.directory": Field("", "of prepared TFDS sets; empty: where TFDS keeps them"),
    "data.cache": Field(
        "", "of those in a bucket; empty: ~/.cache/sws_jax", resume=HARMLESS
    ),
    "data.val_fraction": Field(
        0.1,
        "of the training images, for every choice, where the source has no validation "
        "images of its own",
        limits.VAL_FRACTION,
    ),
    "data.image_size": Field(0, "pixels; 0: as the source has it", Range(0, 2**14)),
    "data.mean": Field((), "empty: as the source says", limits.MEAN, item=float),
    "data.std": Field((), "empty: as the source says", limits.STD, item=float),
    "data.eval_crop": Field(
        1.0,
        "share of the shorter side kept in evaluation",
        limits.EVAL_CROP,
    ),
    "data.repeats": Field(1, "augmented copies of each drawn image", Range(1, 1024)),
    "data.memory_gib": Field(
        2.0,
        "sets that take no more than this are held in memory, decoded",
        limits.MEMORY_GIB,
        resume=HARMLESS,
    ),
    "data.decoder": Field(
        "pillow", "or opencv, where it is installed", choices=limits.DECODERS
    ),
    "data.threads": Field(1, "that read ahead, or", Range(1, 4096), resume=HARMLESS),
    "data.workers": Field(0, "processes", Range(0, 4096), resume=HARMLESS),
    "data.unreadable": Field(
        "stop",
        "at images that turn unreadable, or skip them",
        choices=limits.UNREADABLE,
        resume=CHANGEABLE,
    ),
    "model.depth": Field(12, "blocks of a ViT, without model.stages", _DEPTH),
    "model.stages": Field((), "blocks of each stage of an Aux-Net", _DEPTH),
    "model.width": Field(384, "", Range(1, 65536)),
    "model.heads": Field(6, "", Range(1, 65536)),
    "model.mlp_ratio": Field(
        4.0, "hidden width of an MLP over the width", Range(0, 1024, open_low=True)
    ),
    "model.patch_size": Field(16, "pixels", Range(1, 2**14)),
    "model.pool": Field("mean", choices=vit.POOLS),
    "model.pool_order": Field("norm_mean", choices=vit.POOL_ORDERS),
    "model.norm_eps": Field(1e-6, "", Range(0, 1, open_low=True)),
    "model.gelu": Field("exact", choices=vit.GELUS),
    "model.drop_path": Field(0.1, "rate at the last block", _BELOW_ONE),
    "model.weight_init": Field("normal", choices=vit.WEIGHT_INITS),
    "model.init_std": Field(0.02, "of weight_init normal", _DEVIATION),
    "model.patch_bias_init": Field("zeros", choices=vit.PATCH_BIAS_INITS),
    "model.pos_embed_std": Field(0.02, "", _DEVIATION),
    "compute.dtype": Field("float32", choices=base.DTYPES, resume=CHANGEABLE),
    "compute.remat": Field(
        False, "compute blocks again in the backward pass", resume=HARMLESS
    ),
    "compute.unroll": Field(
        1, "blocks per iteration of a scan", _DEPTH, resume=HARMLESS
    ),
    # Where the weights come from: nothing (scratch), a weights file, or a learngene
    # with model.depth, a plan or an allotment. A path, or run:NAME for an earlier run
    # of the same chain.
    "init.network": Field("", "a weights file"),
    "init.learngene": Field("", "a learngene's file"),
    "init.plan": Field((), "the gene of each block", Range(0, 1023)),
    "init.allotment": Field((), "copies of each gene", Range(0, 1024)),
    "init.head": Field(
        "auto",
        "keep, fresh, or auto, which is as the profile has it",
        choices=("auto", "keep", "fresh"),
    ),
    "init.insist": Field(
        (),
        "names of fields of `model` that the file must agree with; the others follow "
        "it. Fields that a command line or a config's argument sets are added to it",
        item=str,
    ),
    "teacher.path": Field("", "weights file or run directory"),
    "teacher.dtype": Field("float32", choices=base.DTYPES),
    "teacher.min_accuracy": Field(
        -1.0, "least that a teacher must have", limits.MIN_ACCURACY
    ),
    "loss.kind": Field("none", "of distillation, if any", choices=limits.LOSSES),
    "loss.alpha": Field(1.0, "weight of the teacher's part", _SHARE),
    "loss.tau": Field(1.0, "temperature", Range(0, 1e6, open_low=True)),
    "loss.reduction": Field("batchmean", choices=limits.REDUCTIONS),
    # What an image goes through on the host, ...
    "transform.crop": Field("none", choices=limits.CROPS),
    "transform.padding": Field(4, "pixels, of a padded crop", Range(0, 1024)),
    "transform.scale": Field(
        (0.08, 1.0),
        "of a resized crop: share of the area",
        Range(0, 1, open_low=True),
        item=float,
        is_span=True,
    ),
    "transform.ratio": Field(
        (3 / 4, 4 / 3),
        "of a resized crop: width over height",
        Range(0, 1e3, open_low=True),
        item=float,
        is_span=True,
    ),
    "transform.flip": Field(True, "mirror half of the images"),
    "transform.randaugment": Field(
        0, "operations for each image; 0 is off", Range(0, 100)
    ),
    "transform.magnitude": Field(9.0, "of these operations", Range(0, 10)),
    "transform.magnitude_std": Field(0.5, "of the magnitude", _DEVIATION),
    # ... and a batch on the device.
    "augment.erase": Field(0.0, "share of images with a rectangle of noise", _SHARE),
    "augment.erase_area": Field(
        (0.02, 1 / 3),
        "share of the image",
        Range(0, 1, open_low=True),
        item=float,
        is_span=True,
    ),
    "augment.erase_aspect": Field(
        (0.3, 3.3),
        "height over width",
        Range(0, 1e3, open_low=True),
        item=float,
        is_span=True,
    ),
    "augment.mixup": Field(0.8, "alpha of its Beta; 0 is off", Range(0, 1e3)),
    "augment.cutmix": Field(1.0, "alpha of its Beta; 0 is off", Range(0, 1e3)),
    "augment.mix_switch": Field(0.5, "share of cutmix, with both on", _SHARE),
    "augment.mix_group": Field(
        0, "images that are mixed with each other; 0: the batch", Range(0, 2**20)
    ),
    "augment.label_smoothing": Field(0.1, "off-value times classes", _BELOW_ONE),
    "optimizer.weight_decay": Field(0.05, "of kernels", Range(0, 1e3)),
    "optimizer.b1": Field(0.9, "", _BELOW_ONE),
    "optimizer.b2": Field(0.999, "", _BELOW_ONE),
    "optimizer.eps": Field(1e-8, "", Range(0, 1e3)),
    "optimizer.clip_norm": Field(
        0.0, "largest norm of the gradient; 0 never clips", Range(0, 1e9)
    ),
    "schedule.kind": Field("cosine", choices=limits.SCHEDULES),
    "schedule.total_epochs": Field(100.0, "0 trains nothing", _EPOCHS),
    "schedule.rate": Field(5e-4, "per rate_batch images", _RATE),
    "schedule.rate_batch": Field(512, "0: the rate is as it is", Range(0, 2**20)),
    "schedule.warmup_epochs": Field(5.0, "", _EPOCHS),
    "schedule.warmup_rate": Field(1e-6, "first rate; not scaled", _RATE),
    "schedule.minimum": Field(1e-5, "last rate; not scaled", _RATE),
    "evaluation.batch_size": Field(512, "images", _COUNT),
    "evaluation.every_epochs": Field(
        1.0, "between looks at the validation images; 0: never", _EPOCHS
    ),
    "evaluation.milestones": Field(
        (),
        "epochs whose weights are scored on the test images too, at the end of the run",
        _EPOCHS,
        item=float,
    ),
    "evaluation.select": Field(
        "last", "or best on the validation images", choices=("last", "best")
    ),
    "checkpoint.every_epochs": Field(1.0, "0: never", _EPOCHS, resume=HARMLESS),
    "checkpoint.keep_last": Field(
        2, "checkpoints; 0 as 1", Range(0, 2**20), resume=HARMLESS
    ),
    "checkpoint.final": Field(True, "keep one of the end"),
    "log_steps": Field(50, "between lines", Range(1, 2**31 - 1), resume=HARMLESS),
}

# What a job has beside the fields of its runs: `sws_jax.jobs.rows`.
JOB: dict[str, Field] = {
    "job": Field("single", choices=("single", "descendants", "sws")),
    "compare.level": Field(
        "untuned", "with what is compared", choices=("untuned", "tune", "full")
    ),
    "compare.depths": Field((), "of descendants", _DEPTH),
    "compare.long_epochs": Field(300.0, "the long budget from scratch", _EPOCHS),
    # (The most refuses a typing error, not a table.)
    "compare.seeds": Field(1, "of each training", Range(1, 100)),
}


def tree() -> dict[str, Any]:
    """The defaults of a run's fields, a mapping for each group."""
    made: dict[str, Any] = {}
    for name, field in RUN.items():
        group, _, last = name.rpartition(".")
        (made.setdefault(group, {}) if group else made)[last] = field.default
    return made


def find(name: str) -> Field | None:
    """The field of a dotted name, of a run or of a job or of a job's changes to one."""
    return RUN.get(name) or JOB.get(name) or RUN.get(name.partition(".")[2])


def resuming(how: str) -> tuple[str, ...]:
    """Fields that may change on resume, HARMLESS or CHANGEABLE."""
    return tuple(name for name, field in RUN.items() if field.resume == how)
