"""Every field of a config, in one table: default, what it may be, meaning, resuming.

What makes, checks, compares or lists fields reads it: `sws_jax.jobs.recipes.run` makes
a config of it, the checks of a run refuse what is out of range, and
`sws_jax.jobs.reference` prints it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from sws_jax.arguments import Range
from sws_jax.errors import UserError
from sws_jax.models import profiles
from sws_jax.specs import base, limits, vit

# Whether a run that has begun may go on with another value. A harmless field changes
# how the run is computed or watched, and not what it computes. A changeable one does
# change that, and the run's result says from which step on it had which value; a
# finished run is asked for with its own.
HARMLESS, CHANGEABLE = "harmless", "changeable"


@dataclasses.dataclass(frozen=True)
class Field:
    """One field.

    Attributes:
      default: its value, whose type is the field's.
      meaning: what it does, with its unit; of a few words or sentences.
      range: of a number, or of each number of a tuple.
      choices: that a text may be; none: any text.
      item: type of what a tuple holds; float ones may be whole too.
      is_span: a tuple of two, the smaller one first.
      resume: HARMLESS, CHANGEABLE, or empty.
    """

    default: Any
    meaning: str
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

    @property
    def values(self) -> str:
        """What the field may be, in words."""
        ends = f", {self.range.words}" if self.range else ""
        if self.choices:
            return " or ".join([", ".join(self.choices[:-1]), self.choices[-1]])
        if self.is_span:
            return f"two {self.items}, the smaller one first, each {self.range.words}"  # type: ignore[union-attr]
        if isinstance(self.default, tuple):
            return f"{self.items}{ends.replace(', ', ', each ', 1)}"
        kinds = {bool: "True or False", int: "a whole number", float: "a number"}
        return kinds.get(type(self.default), "text") + ends

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
_RATE = Range(0, 1e30)  # A run says itself that a large one diverges.
_DEVIATION = Range(0, 1e3)
_COUNT = Range(1, 2**20)
_DEPTH = Range(1, 1024)
_AXIS = Range(-1, 2**20)

# What the fields of a group are about; an empty name has those without a group. Groups
# have the names and fields of the dataclasses that they become.
GROUPS = {
    "": "the run as a whole",
    "mesh": "how devices are arranged",
    "data": "what is trained on, and how it is read",
    "model": "the network",
    "compute": "how the network is computed; the same weights fit every setting",
    "init": "where the first weights come from: a seed, a weights file or a learngene",
    "phase": "which phase of a method a run trains; a job sets it",
    "teacher": "the network that a run is distilled from",
    "loss": "what is minimised",
    "transform": "what an image goes through on the host",
    "augment": "what a batch of images goes through on the device",
    "optimizer": "AdamW",
    "schedule": "how long a run is, and its learning rate",
    "evaluation": "when weights are scored, and which are kept",
    "checkpoint": "when a run is saved, so that it can go on",
    "replay": "which steps are computed twice, to notice faulty devices",
}
JOB_GROUPS = {
    "": "the job: which runs it has",
    "compare": "the comparison of a job of several runs",
}

RUN: dict[str, Field] = {
    "name": Field("run", "Name of the run's directory in the work directory."),
    "seed": Field(
        0,
        "Decides all that is random: first weights, order of the images, augmentation.",
        Range(0, 2**32 - 1),
    ),
    "profile": Field(
        "consistent",
        "Which reading of the method decides what a learngene expands to: consistent, "
        "which agrees with itself, or official, that of the released code. Fields that "
        "the released code has otherwise are set by a config's argument "
        "profile=official.",
        choices=tuple(profiles.PROFILES),
    ),
    "global_batch_size": Field(
        512, "Images in one step, over all devices and hosts together.", _COUNT
    ),
    "accum_steps": Field(
        1,
        "Parts that a batch is computed in, one after the other, which takes less "
        "memory. The step is that of the whole batch.",
        _COUNT,
    ),
    "ema": Field(
        0.0,
        "Decay, in each step, of a moving average of the weights. 0 keeps none.",
        _BELOW_ONE,
    ),
    "ema_start": Field(
        "weights",
        "What the moving average starts from. weights: those before the first step; "
        "seed: those that the seed gives, before any were loaded.",
        choices=("weights", "seed"),
    ),
    "mesh.data": Field(
        -1,
        "Devices along the axis that splits batches. One of the axes may be -1, which "
        "is all that the others leave.",
        _AXIS,
        resume=HARMLESS,
    ),
    "mesh.fsdp": Field(
        1,
        "Devices along the axis that splits batches, and parameters by their width.",
        _AXIS,
        resume=HARMLESS,
    ),
    "mesh.tensor": Field(
        1,
        "Devices along the axis that splits parameters by heads and hidden units.",
        _AXIS,
        resume=HARMLESS,
    ),
    "mesh.dry_run": Field(
        "",
        "Devices that are not here, as 8, v5e-256 or 8xH100: what each of them would "
        "hold and send is printed, and nothing is run. With here, the devices of this "
        "machine, and how long a step takes, from rates that are measured.",
        resume=HARMLESS,
    ),
    "data.source": Field(
        "digits",
        "The data: digits; the path of a folder of images, of prepared arrays or of an "
        ".npz file; or tfds:NAME.",
    ),
    "data.directory": Field(
        "", "Folder of prepared TFDS sets. Empty takes the one of TFDS."
    ),
    "data.cache": Field(
        "",
        "Folder on this machine for copies of TFDS sets that are in a bucket. Empty "
        "takes ~/.cache/sws_jax.",
        resume=HARMLESS,
    ),
    "data.val_fraction": Field(
        0.1,
        "Share of the training images that is held out for every choice, where the "
        "data has no validation images of its own.",
        limits.VAL_FRACTION,
    ),
    "data.image_size": Field(
        0,
        "Side of the images that the network gets, in pixels. 0 takes that of the "
        "data.",
        Range(0, 2**14),
    ),
    "data.mean": Field(
        (),
        "Mean of each colour channel, of pixels from 0 to 1. Empty takes that of the "
        "data: ImageNet's for three channels.",
        limits.MEAN,
        item=float,
    ),
    "data.std": Field(
        (),
        "Standard deviation of each colour channel, of pixels from 0 to 1. Empty takes "
        "that of the data.",
        limits.STD,
        item=float,
    ),
    "data.eval_crop": Field(
        1.0,
        "Share of an image's shorter side that is kept in evaluation.",
        limits.EVAL_CROP,
    ),
    "data.repeats": Field(
        1, "Augmented copies of each image that is drawn.", Range(1, 1024)
    ),
    "data.memory_gib": Field(
        2.0,
        "Memory in GiB: data whose decoded images take no more is held in it, and "
        "other data is decoded as it is read.",
        limits.MEMORY_GIB,
        resume=HARMLESS,
    ),
    "data.decoder": Field(
        "pillow",
        "Library that decodes images. opencv must be installed.",
        choices=limits.DECODERS,
    ),
    "data.threads": Field(
        1,
        "Threads that read ahead, where data.workers is 0.",
        Range(1, 4096),
        resume=HARMLESS,
    ),
    "data.workers": Field(
        0,
        "Processes that read ahead. 0 reads in threads of the run's own process.",
        Range(0, 4096),
        resume=HARMLESS,
    ),
    "data.on_device": Field(
        "auto",
        "Whether training images live on the devices, each of which holds them all, "
        "and are cropped and mirrored there, into the same batches. It needs a set in "
        "one array, and neither a resized crop nor RandAugment. auto: yes on an "
        "accelerator of whose memory they take a tenth or less; no on a CPU, where it "
        "was measured to be no faster.",
        choices=("auto", "yes", "no"),
        resume=HARMLESS,
    ),
    "data.unreadable": Field(
        "stop",
        "What happens at an image that cannot be read. stop: the run ends; skip: the "
        "next image is taken in its place, and counted.",
        choices=limits.UNREADABLE,
        resume=CHANGEABLE,
    ),
    "model.depth": Field(
        12,
        "Blocks of a ViT. Not used where model.stages, init.plan or init.allotment say "
        "how many.",
        _DEPTH,
    ),
    "model.stages": Field(
        (),
        "Times that each stage of an Aux-Net applies its one block. Empty: the network "
        "is a plain ViT.",
        _DEPTH,
    ),
    "model.width": Field(
        384, "Width of a token: its number of features.", Range(1, 65536)
    ),
    "model.heads": Field(
        6, "Attention heads, which divide the width.", Range(1, 65536)
    ),
    "model.mlp_ratio": Field(
        4.0,
        "Hidden width of an MLP over the width of the network.",
        Range(0, 1024, open_low=True),
    ),
    "model.patch_size": Field(
        16, "Side of a square patch, in pixels.", Range(1, 2**14)
    ),
    "model.pool": Field(
        "mean",
        "What the head reads. mean: the mean of all tokens; token: a class token.",
        choices=vit.POOLS,
    ),
    "model.pool_order": Field(
        "norm_mean",
        "norm_mean: every token is normed, and then they are averaged; mean_norm: the "
        "other way round. With a class token it is norm_mean.",
        choices=vit.POOL_ORDERS,
    ),
    "model.norm_eps": Field(
        1e-6, "Epsilon of every LayerNorm.", Range(0, 1, open_low=True)
    ),
    "model.gelu": Field(
        "exact",
        "Activation of the MLPs. exact: GELU; tanh: its approximation by tanh.",
        choices=vit.GELUS,
    ),
    "model.drop_path": Field(
        0.1,
        "Stochastic depth: rate at which a branch of the last block is dropped. The "
        "rates of the blocks rise to it linearly from 0.",
        _BELOW_ONE,
    ),
    "model.weight_init": Field(
        "normal",
        "Distribution of the first weights. normal: of deviation model.init_std, as "
        "DeiT; fan_in: truncated normal of variance 1 / fan in, which suits small "
        "widths.",
        choices=vit.WEIGHT_INITS,
    ),
    "model.init_std": Field(
        0.02,
        "Standard deviation of the first weights, with model.weight_init=normal.",
        _DEVIATION,
    ),
    "model.patch_bias_init": Field(
        "zeros",
        "First bias of the patch embedding. zeros: 0; uniform: drawn up to "
        "1 / sqrt(fan in) on both sides of 0, as in PyTorch's convolutions.",
        choices=vit.PATCH_BIAS_INITS,
    ),
    "model.pos_embed_std": Field(
        0.02,
        "Standard deviation of the first position embedding and class token.",
        _DEVIATION,
    ),
    "compute.dtype": Field(
        "float32",
        "Type of activations and matrix products. Parameters, softmax and the "
        "statistics of norms are float32 in any case.",
        choices=base.DTYPES,
        resume=CHANGEABLE,
    ),
    "compute.remat": Field(
        False,
        "Compute each block again in the backward pass, in place of storing it.",
        resume=HARMLESS,
    ),
    "compute.unroll": Field(
        1, "Blocks in one iteration of the scan over blocks.", _DEPTH, resume=HARMLESS
    ),
    "compute.backend": Field(
        "default",
        "Whose rules for the formulas of a block: default has those of the device "
        "that it runs on, plain leaves all to the compiler. They differ by rounding.",
        choices=base.BACKENDS,
        resume=HARMLESS,
    ),
    "init.network": Field(
        "",
        "Weights to start from: a weights file, a run's directory, or run:NAME, an "
        "earlier run of the job.",
    ),
    "init.learngene": Field(
        "",
        "Learngene to start from, expanded to model.depth, init.plan or "
        "init.allotment: its file, or run:NAME, an earlier run of the job.",
    ),
    "init.plan": Field(
        (),
        "Gene that each block copies, counted from 0. Empty: the method divides the "
        "depth.",
        Range(0, 1023),
    ),
    "init.allotment": Field(
        (),
        "Copies of each gene, in their order. Empty: the method divides the depth.",
        Range(0, 1024),
    ),
    "init.head": Field(
        "auto",
        "Whether the file's head is kept, or a fresh one takes its place. auto keeps "
        "it where the class names are the same, with profile=official where the "
        "dataset is.",
        choices=("auto", "keep", "fresh"),
    ),
    "init.insist": Field(
        (),
        "Fields of model in which the file must agree with the config; the others "
        "follow the file. Those that a command line or a config's argument sets are "
        "added to it.",
        item=str,
    ),
    "phase.method": Field(
        "",
        "Method whose phase the run trains. Empty: the other fields describe the run "
        "fully.",
    ),
    "phase.name": Field("", "Name of that phase."),
    "phase.ancestor": Field(
        "",
        "The ancestor, for a phase that starts from parameters computed from it: a "
        "weights file, a run's directory, or run:NAME.",
    ),
    "phase.depth": Field(
        0,
        "Depth of the descendant that the phase is for. 0: all share it.",
        Range(0, 1024),
    ),
    "teacher.path": Field(
        "",
        "The teacher: a weights file, a run's directory, or run:NAME, an earlier run "
        "of the job.",
    ),
    "teacher.dtype": Field(
        "float32", "Type that the teacher computes in.", choices=base.DTYPES
    ),
    "teacher.min_accuracy": Field(
        -1.0,
        "Least accuracy on the validation images with which a teacher is taken, as a "
        "share. Below 0: a tenth of the way from chance to 1.",
        limits.MIN_ACCURACY,
    ),
    "loss.kind": Field(
        "none",
        "What is learnt from a teacher. none: there is none; soft: its probabilities; "
        "hard: its decision.",
        choices=limits.LOSSES,
    ),
    "loss.alpha": Field(
        1.0, "Weight of the teacher's part; the labels have the rest.", _SHARE
    ),
    "loss.tau": Field(
        1.0,
        "Temperature of the probabilities, with loss.kind=soft.",
        Range(0, 1e6, open_low=True),
    ),
    "loss.reduction": Field(
        "batchmean",
        "What the soft loss is divided by. batchmean: the images of the batch; "
        "per_class: images times classes, as in the released code.",
        choices=limits.REDUCTIONS,
    ),
    "transform.crop": Field(
        "none",
        "What of an image is seen. none: what evaluation sees; padded: the image "
        "within a black border, shifted at random; resized: a random part, scaled.",
        choices=limits.CROPS,
    ),
    "transform.padding": Field(
        4, "Width of the black border of a padded crop, in pixels.", Range(0, 1024)
    ),
    "transform.scale": Field(
        (0.08, 1.0),
        "Share of the image's area that a resized crop has.",
        Range(0, 1, open_low=True),
        item=float,
        is_span=True,
    ),
    "transform.ratio": Field(
        (3 / 4, 4 / 3),
        "Width over height of a resized crop.",
        Range(0, 1e3, open_low=True),
        item=float,
        is_span=True,
    ),
    "transform.flip": Field(True, "Mirror half of the images, left to right."),
    "transform.randaugment": Field(
        0, "Operations of RandAugment for each image. 0 is off.", Range(0, 100)
    ),
    "transform.magnitude": Field(
        9.0, "Mean magnitude of these operations, of 10.", Range(0, 10)
    ),
    "transform.magnitude_std": Field(
        0.5, "Standard deviation of their magnitude.", _DEVIATION
    ),
    "augment.erase": Field(
        0.0, "Share of the images in which a rectangle becomes noise.", _SHARE
    ),
    "augment.erase_area": Field(
        (0.02, 1 / 3),
        "Share of the image's area that the rectangle has.",
        Range(0, 1, open_low=True),
        item=float,
        is_span=True,
    ),
    "augment.erase_aspect": Field(
        (0.3, 3.3),
        "Height over width of the rectangle.",
        Range(0, 1e3, open_low=True),
        item=float,
        is_span=True,
    ),
    "augment.mixup": Field(
        0.8, "Alpha of the Beta distribution of mixup. 0 is off.", Range(0, 1e3)
    ),
    "augment.cutmix": Field(
        1.0, "Alpha of the Beta distribution of CutMix. 0 is off.", Range(0, 1e3)
    ),
    "augment.mix_switch": Field(
        0.5, "Share of the groups that get CutMix, where mixup is on too.", _SHARE
    ),
    "augment.mix_group": Field(
        0,
        "Images of a group, which are mixed with each other and share what is drawn. "
        "0 is the whole batch.",
        Range(0, 2**20),
    ),
    "augment.label_smoothing": Field(
        0.1,
        "Label smoothing: the share of a target that is spread over all classes.",
        _BELOW_ONE,
    ),
    "optimizer.weight_decay": Field(
        0.05, "Weight decay of kernels, and of nothing else.", Range(0, 1e3)
    ),
    "optimizer.b1": Field(0.9, "Decay of the moving average of gradients.", _BELOW_ONE),
    "optimizer.b2": Field(
        0.999, "Decay of the moving average of squared gradients.", _BELOW_ONE
    ),
    "optimizer.eps": Field(
        1e-8, "Epsilon that the update's denominator has added.", Range(0, 1e3)
    ),
    "optimizer.clip_norm": Field(
        0.0, "Largest global norm of the gradient. 0 never clips.", Range(0, 1e9)
    ),
    "schedule.kind": Field(
        "cosine",
        "Curve of the learning rate after the warm-up. cosine: half a cosine over the "
        "run; cosine_per_epoch: the same, set once per epoch and one epoch late, as in "
        "the released code; constant: schedule.rate to the end.",
        choices=limits.SCHEDULES,
    ),
    "schedule.total_epochs": Field(
        100.0, "Length of the run, in epochs. 0 trains nothing.", _EPOCHS
    ),
    "schedule.rate": Field(
        5e-4,
        "Learning rate after the warm-up, for schedule.rate_batch images in a batch.",
        _RATE,
    ),
    "schedule.rate_batch": Field(
        512,
        "Images of the batch that schedule.rate is for; a larger batch has a larger "
        "rate in proportion. 0: the rate is that of any batch.",
        Range(0, 2**20),
    ),
    "schedule.warmup_epochs": Field(
        5.0, "Length of the linear warm-up within the run, in epochs.", _EPOCHS
    ),
    "schedule.warmup_rate": Field(
        1e-6, "Rate of the first step, whatever the batch.", _RATE
    ),
    "schedule.minimum": Field(1e-5, "Rate at the end, whatever the batch.", _RATE),
    "evaluation.batch_size": Field(
        512, "Images that are scored together, over all devices and hosts.", _COUNT
    ),
    "evaluation.every_epochs": Field(
        1.0,
        "Epochs between two scores on the validation images. They are scored at every "
        "checkpoint and at the end too, and with 0 there alone.",
        _EPOCHS,
    ),
    "evaluation.milestones": Field(
        (),
        "Epochs whose weights are scored on the test images too, at the end of the "
        "run.",
        _EPOCHS,
        item=float,
    ),
    "evaluation.select": Field(
        "last",
        "Weights that a run ends with. last: those of its last step; best: those of "
        "the checkpoint that is best on the validation images.",
        choices=("last", "best"),
    ),
    "checkpoint.every_epochs": Field(
        1.0,
        "Epochs between two checkpoints. 0: none but at evaluation.milestones and at "
        "the end.",
        _EPOCHS,
        resume=HARMLESS,
    ),
    "checkpoint.keep_last": Field(
        2,
        "Newest checkpoints that are kept; 0 is as 1.",
        Range(0, 2**20),
        resume=HARMLESS,
    ),
    "checkpoint.final": Field(True, "Keep a checkpoint of the run's end."),
    "replay.every_steps": Field(
        0,
        "Of so many steps one is computed twice: where the two results differ in a "
        "bit, a device computes wrongly, and the run ends. It takes the time of a "
        "step, the memory of one more state (weights, optimiser and average), and "
        "kernels that give the same bits each time. 0: none.",
        Range(0, 2**31 - 1),
        resume=HARMLESS,
    ),
    "log_steps": Field(
        50,
        "Steps between two lines of progress and metrics.",
        Range(1, 2**31 - 1),
        resume=HARMLESS,
    ),
}

# Kinds of jobs by the names that older configs have for them.
OLDER_JOBS = {"sws": "chain"}
# What a job has beside the fields of its runs: `sws_jax.jobs.rows`.
JOB: dict[str, Field] = {
    "job": Field(
        "single",
        "Which runs there are. single: one; descendants: those of one learngene, of "
        "several depths; chain: ancestor, the phases of each method, and its "
        "descendants. sws is an older name of chain.",
        choices=("single", "descendants", "chain", *OLDER_JOBS),
    ),
    "methods": Field(
        ("sws",),
        "Methods of a chain, which share the ancestor and the networks from scratch.",
        item=str,
    ),
    "compare.level": Field(
        "untuned",
        "Runs of each depth. untuned: a descendant, scored as it is expanded; tune: a "
        "descendant that is tuned; full: networks from scratch beside it.",
        choices=("untuned", "tune", "full"),
    ),
    "compare.depths": Field((), "Blocks of each descendant.", _DEPTH),
    "compare.long_epochs": Field(
        300.0,
        "Epochs of the long training from scratch; the short one is as long as the "
        "tuning.",
        _EPOCHS,
    ),
    # The most refuses a typing error, not a table.
    "compare.seeds": Field(
        1, "Trainings at each depth, each with another seed.", Range(1, 100)
    ),
}


def tree() -> dict[str, Any]:
    """The defaults of a run's fields, a mapping for each group."""
    defaults: dict[str, Any] = {}
    for name, field in RUN.items():
        group, _, last = name.rpartition(".")
        (defaults.setdefault(group, {}) if group else defaults)[last] = field.default
    return defaults


def find(name: str) -> Field | None:
    """The field of a dotted name, of a run or of a job or of a job's changes to one."""
    return RUN.get(name) or JOB.get(name) or RUN.get(name.partition(".")[2])


def resuming(how: str) -> tuple[str, ...]:
    """Fields that may change on resume, HARMLESS or CHANGEABLE."""
    return tuple(name for name, field in RUN.items() if field.resume == how)
