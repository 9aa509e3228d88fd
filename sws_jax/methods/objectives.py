"""What is minimised: the interface, and losses, each naming its reduction."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sws_jax import trees, xla_flags
from sws_jax.errors import UserError
from sws_jax.models.outputs import Outputs
from sws_jax.specs import Spec
from sws_jax.specs.limits import LOSSES, REDUCTIONS

xla_flags.warn()


class Objective(Protocol):
    """What a phase minimises: frozen and hashable, like a dataclass of plain values.

    A step is compiled for it: equal ones share a program.

    Attributes:
      taps: what it needs of student and teacher besides logits: names of
        `sws_jax.models.outputs.TAPS`.
      needs_teacher: whether there is nothing to minimise without a teacher.
    """

    @property
    def taps(self) -> tuple[str, ...]: ...

    @property
    def needs_teacher(self) -> bool: ...

    def init(self, key: jax.Array, student: Spec, teacher: Spec | None) -> trees.Tree:
        """Parameters of its own, which are trained with the network's; {} for most.

        A nested dict of arrays, whose keys are names without ``/``: a run saves it.
        Leaves may be boxed with the names of their logical axes (`nn.Partitioned`);
        others are the same on every device. Those named ``kernel`` are decayed.

        Args:
          key: of the run's seed.
          student: the network that is trained.
          teacher: None without one.
        """
        ...

    def __call__(
        self,
        own: trees.Tree,
        students: tuple[Outputs, ...],
        targets: jax.Array,
        teacher: Outputs | None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of a batch, a mean over its images, and further numbers to log.

        Args:
          own: as `init` made them, or trained since.
          students: of each variant that the step has picked, in that order.
          targets: [batch, classes] label distributions, smoothed and mixed.
          teacher: on the same batch, without gradient.

        Returns:
          A scalar; and scalars by name, each a mean over the images, for the log.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Loss:
    """The usual objective: cross entropy with labels, with a teacher, or both.

    It has no parameters of its own, and trains the reference alone.

    Attributes:
      kind: "none" takes the labels only, "soft" the KL divergence from the teacher,
        "hard" the cross entropy with the teacher's decision.
      alpha: weight of the teacher's part; 1 leaves the labels out.
      tau: temperature of the soft loss.
      reduction: of the KL divergence. "batchmean" sums over classes and averages over
        the batch; "per_class" divides by batch x classes, as the published code of SWS.
    """

    kind: str = "none"
    alpha: float = 1.0
    tau: float = 1.0
    reduction: str = "batchmean"
    taps: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        for field, known in (("kind", LOSSES), ("reduction", REDUCTIONS)):
            if getattr(self, field) not in known:
                raise UserError(
                    f"loss {field} {getattr(self, field)!r} is not one of "
                    f"{', '.join(known)}"
                )
        if not 0.0 <= self.alpha <= 1.0 or self.tau <= 0.0:
            raise UserError(
                f"a loss needs alpha in [0, 1] and tau above 0, and has alpha "
                f"{self.alpha} and tau {self.tau}"
            )

    @property
    def needs_teacher(self) -> bool:
        return self.kind != "none"

    def init(self, key: jax.Array, student: Spec, teacher: Spec | None) -> trees.Tree:
        """No parameters; see `Objective.init`."""
        return {}

    def __call__(
        self,
        own: trees.Tree,
        students: tuple[Outputs, ...],
        targets: Float[Array, "batch classes"],
        teacher: Outputs | None,
    ) -> tuple[Float[Array, ""], dict[str, jax.Array]]:
        """`of` the first student's logits; see `Objective.__call__`."""
        logits = None if teacher is None else teacher.logits
        return self.of(students[0].logits, targets, logits), {}

    def of(
        self,
        logits: Float[Array, "batch classes"],
        targets: Float[Array, "batch classes"],
        teacher_logits: Float[Array, "batch classes"] | None = None,
    ) -> Float[Array, ""]:
        """The loss of a batch.

        ``(1 - alpha) CE(logits, targets) + alpha D(teacher, logits)`` where D is
        `soft_distillation` or `hard_distillation`; cross entropy alone for "none".

        Args:
          logits: of the student.
          targets: label distributions, already smoothed and mixed.
          teacher_logits: of the teacher on the same batch.

        Returns:
          A scalar, mean over the batch, and with "per_class" over the classes too.

        Reference:
          DeiT, 2012.12877, equations 2 and 3.
        """
        if not self.needs_teacher:
            return cross_entropy(logits, targets)
        if teacher_logits is None:
            raise UserError(
                f"a loss of kind {self.kind!r} needs a teacher and there is none"
            )
        teacher_logits = teacher_logits.astype(jnp.float32)
        if self.kind == "soft":
            loss = self.alpha * soft_distillation(
                logits, teacher_logits, tau=self.tau, reduction=self.reduction
            )
        else:
            loss = self.alpha * hard_distillation(logits, teacher_logits)
        if self.alpha < 1.0:
            loss += (1.0 - self.alpha) * cross_entropy(logits, targets)
        return loss


def cross_entropy(
    logits: Float[Array, "batch classes"], targets: Float[Array, "batch classes"]
) -> Float[Array, ""]:
    """``-sum_c targets log softmax(logits)``, mean over the batch."""
    return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1).mean()


def soft_distillation(
    logits: Float[Array, "batch classes"],
    teacher_logits: Float[Array, "batch classes"],
    *,
    tau: float = 1.0,
    reduction: str = "batchmean",
) -> Float[Array, ""]:
    """``tau^2 KL(softmax(teacher / tau) || softmax(logits / tau))``.

    Args:
      logits: of the student.
      teacher_logits: of the teacher.
      tau: temperature.
      reduction: "batchmean" sums over classes and averages over the batch;
        "per_class" divides by batch x classes.

    Reference:
      Distilling the Knowledge in a Neural Network, 1503.02531, section 2.
    """
    log_p = jax.nn.log_softmax(teacher_logits / tau)
    log_q = jax.nn.log_softmax(logits / tau)
    kl = jnp.exp(log_p) * (log_p - log_q) * tau**2
    return kl.mean() if reduction == "per_class" else kl.sum(axis=-1).mean()


def hard_distillation(
    logits: Float[Array, "batch classes"],
    teacher_logits: Float[Array, "batch classes"],
) -> Float[Array, ""]:
    """Cross entropy with the teacher's decision, mean over the batch."""
    decision = jax.nn.one_hot(teacher_logits.argmax(axis=-1), logits.shape[-1])
    return cross_entropy(logits, decision)
