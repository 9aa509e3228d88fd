"""Losses of labels and of a teacher against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from sws_jax.data import augment
from sws_jax.errors import UserError
from sws_jax.methods import objectives
from sws_jax.methods.objectives import Loss

LN2, LN3 = 0.6931471805599453, 1.0986122886681098

# Two images, three classes. Student and teacher are logarithms of probabilities.
STUDENT = jnp.log(jnp.asarray([[0.125, 0.125, 0.75], [0.25, 0.25, 0.5]]))
TEACHER = jnp.log(jnp.asarray([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]]))
TARGETS = jnp.asarray([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])

# First image: -ln 1/8. Second: -(ln 1/4 + ln 1/2) / 2.
LABELS_ALONE = (3 * LN2 + 1.5 * LN2) / 2
# First image: ln(4)/2 + ln(2)/4 + ln(1/3)/4. Second: teacher and student agree.
KL = 1.25 * LN2 - 0.25 * LN3
# The teacher decides for classes 0 and 2: -ln 1/8 and -ln 1/2.
HARD = (3 * LN2 + LN2) / 2


def near(value):
    return pytest.approx(value, rel=1e-5)


def test_cross_entropy():
    assert float(objectives.cross_entropy(STUDENT, TARGETS)) == near(LABELS_ALONE)
    shifted = STUDENT + jnp.asarray([[100.0], [-100.0]])
    assert float(objectives.cross_entropy(shifted, TARGETS)) == near(LABELS_ALONE)


@pytest.mark.parametrize("tau", [1.0, 2.0, 0.5])
@pytest.mark.parametrize("reduction, count", [("batchmean", 2), ("per_class", 6)])
def test_soft_distillation(tau, reduction, count):
    """Logits times tau undo the temperature, and leave the factor tau^2."""
    loss = objectives.soft_distillation(
        tau * STUDENT + 3.0, tau * TEACHER - 5.0, tau=tau, reduction=reduction
    )
    assert float(loss) == near(tau**2 * KL / count)


def test_soft_distillation_by_default():
    assert float(objectives.soft_distillation(STUDENT, TEACHER)) == near(KL / 2)
    assert float(objectives.soft_distillation(TEACHER, TEACHER)) == 0.0


@pytest.mark.parametrize("reduction, count", [("batchmean", 2), ("per_class", 6)])
def test_gradient_of_soft_distillation(reduction, count):
    """By hand: tau (q - p) over the batch, p and q at temperature tau."""

    def loss(logits):
        logits = jnp.asarray(logits)  # check_grads gives numpy
        return objectives.soft_distillation(
            logits, TEACHER, tau=2.0, reduction=reduction
        )

    p = np.sqrt([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]])
    q = np.sqrt([[0.125, 0.125, 0.75], [0.25, 0.25, 0.5]])
    p, q = (x / x.sum(axis=1, keepdims=True) for x in (p, q))
    np.testing.assert_allclose(jax.grad(loss)(STUDENT), 2 * (q - p) / count, atol=1e-6)
    check_grads(loss, (STUDENT,), order=1)


def test_hard_distillation():
    assert float(objectives.hard_distillation(STUDENT, TEACHER)) == near(HARD)
    assert float(objectives.hard_distillation(STUDENT, 9 * TEACHER)) == near(HARD)


@pytest.mark.parametrize(
    "smoothing, off, on", [(0.0, 0.0, 1.0), (0.1, 0.1 / 3, 0.9 + 0.1 / 3)]
)
def test_smooth_labels(smoothing, off, on):
    targets = augment.smooth_labels(jnp.asarray([2, 0]), 3, smoothing)
    np.testing.assert_allclose(targets, [[off, off, on], [on, off, off]], atol=1e-6)
    np.testing.assert_allclose(targets.sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize(
    "loss, expected",
    [
        (Loss(), LABELS_ALONE),
        (Loss(kind="soft", alpha=0.25), 0.75 * LABELS_ALONE + 0.25 * KL / 2),
        (
            Loss(kind="soft", alpha=0.25, reduction="per_class"),
            0.75 * LABELS_ALONE + 0.25 * KL / 6,
        ),
        (Loss(kind="hard", alpha=0.25), 0.75 * LABELS_ALONE + 0.25 * HARD),
        (Loss(kind="soft", alpha=0.0), LABELS_ALONE),
    ],
)
def test_labels_and_teacher_are_weighed(loss, expected):
    assert float(loss.of(STUDENT, TARGETS, TEACHER)) == near(expected)


@pytest.mark.parametrize(
    "loss, expected",
    [
        (Loss(kind="soft"), KL / 2),
        (Loss(kind="soft", reduction="per_class"), KL / 6),
        (Loss(kind="hard"), HARD),
    ],
)
def test_alpha_1_leaves_the_labels_out(loss, expected):
    unknown = jnp.full((2, 3), jnp.nan)
    assert float(loss.of(STUDENT, unknown, TEACHER)) == near(expected)


def test_the_temperature_reaches_the_soft_loss():
    loss = Loss(kind="soft", tau=2.0)
    assert float(loss.of(2 * STUDENT, TARGETS, 2 * TEACHER)) == near(4 * KL / 2)


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(kind="kl"), "loss kind 'kl' is not one of none, soft, hard"),
        (dict(reduction="sum"), "reduction 'sum' is not one of batchmean, per_class"),
        (dict(alpha=1.5), "alpha in .0, 1.*has alpha 1.5"),
        (dict(alpha=-0.1), "alpha -0.1"),
        (dict(tau=0.0), "tau above 0.*tau 0.0"),
        (dict(tau=-1.0), "tau -1.0"),
    ],
)
def test_impossible_losses_are_refused(fields, words):
    with pytest.raises(UserError, match=words):
        Loss(**fields)


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_a_loss_without_its_teacher_is_refused(kind):
    assert Loss(kind=kind).needs_teacher
    with pytest.raises(UserError, match=f"kind '{kind}' needs a teacher"):
        Loss(kind=kind).of(STUDENT, TARGETS)


def test_labels_alone_need_no_teacher():
    assert not Loss().needs_teacher
    assert float(Loss().of(STUDENT, TARGETS)) == near(LABELS_ALONE)
