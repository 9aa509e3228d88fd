"""Plans of runs, against the paper's ratios and sums by hand."""

import pytest

from sws_jax import specs
from sws_jax.estimate import comparison, flops

from support.formulas import DEPTHS, NANO, formula, forward

AUX = specs.AuxViTSpec(NANO, (1, 1))


@pytest.mark.parametrize(
    "size, stored, gene, expected",
    [
        # Storage is printed as 20.1 (S) and 20.6 (B). Of "6.6", 6.67 are the epochs of
        # S, and 6.56 the layer-epochs of B.
        ("S", 193_882_000, 9_628_648, (20.14, 10.0, 6.67, 4.38, 3.04)),
        ("B", 759_343_120, 36_951_016, (20.55, 10.0, 10.0, 6.56, 3.96)),
    ],
)
def test_the_papers_ratios(size, stored, gene, expected):
    claims = comparison.paper(size)
    *others, training = claims
    assert tuple(round(claim.ratio, 2) for claim in others) == expected
    assert [claim.quantity for claim in others] == [
        "stored", "pretrainings", "epochs", "layer_epochs", "layer_epochs",
    ]  # fmt: skip
    assert claims[0].values == (stored, gene)
    (kept,) = claims[0].one.kept
    assert kept.name.endswith("_3-3-4-3-3")
    nets = [kept.net.replace(depth=depth) for depth in DEPTHS]
    assert (stored, gene) == (sum(map(formula, nets)), formula(kept))
    readings = [c.quantity for c in claims if "a reading of 6.6" in c.condition]
    assert readings == ["epochs" if size == "S" else "layer_epochs"]
    assert [("tuning" in claim.condition) for claim in claims[2:]] == [True] * 4
    tuned = ["10 of tuning for each depth" in claim.condition for claim in claims]
    assert tuned == [False] * 4 + [True] * 2
    assert training.quantity == "flops"


def test_tuning_and_teacher_count_where_they_are_asked_for():
    bare = comparison.by_learngene(AUX, (1, 2), epochs=4.0, images=10)
    assert (bare.epochs, bare.layer_epochs, bare.pretrainings) == (4, 8, 1)
    assert bare.flops == 40 * flops.step_flops(AUX)
    full = comparison.by_learngene(
        AUX,
        (1, 2),
        epochs=4.0,
        tuning=0.5,
        images=10,
        teacher=NANO,
    )
    assert (full.epochs, full.layer_epochs, full.pretrainings) == (5, 8 + 1.5, 1)
    tuning = sum(5 * flops.step_flops(NANO.replace(depth=d)) for d in (1, 2))
    taught = 40 * forward(NANO)
    assert full.flops == bare.flops + taught + tuning
    assert full.stored == bare.stored == formula(AUX)
    alone = comparison.separately(NANO, (1, 2), epochs=6.0, images=10)
    ratios = comparison.ratios(alone, bare)
    assert tuple(ratios) == comparison.QUANTITIES
    assert (ratios["epochs"], ratios["layer_epochs"]) == (3.0, 18 / 8)
    assert ratios["pretrainings"] == 2.0


@pytest.mark.parametrize("fields", [dict(epochs=-1.0), dict(epochs=1.0, images=0)])
def test_impossible_runs_are_refused(fields):
    with pytest.raises(ValueError, match="at least"):
        comparison.Run("aux", NANO, **fields)


def test_a_step_that_was_counted_takes_the_place_of_the_networks():
    run = comparison.Run("aux", NANO, 2.0, 7, counted=2.5)
    assert (run.step_flops, run.flops) == (2.5, 2 * 7 * 2.5)
