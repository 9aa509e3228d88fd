"""What a teacher adds to the step of an Aux-S/16.

The student is distilled from the logits of a frozen network of random weights, in
bfloat16 as well, which sees the same images.

How to read it: `step_over_plain` is the median of the ratios to a step that learns from
labels, measured in turns; `flops_over_plain` is what the arithmetic says. Both networks
count in `share`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Iterator

import numpy as np

from benchmarks import measure, step
from benchmarks.accelerator import rates, steps
from benchmarks.accelerator.asked import Asked, Case
from benchmarks.measure import Row
from sws_jax import specs, trees
from sws_jax.estimate import flops
from sws_jax.methods.objectives import Loss
from sws_jax.models import networks
from sws_jax.models.networks import Network, Predictor
from sws_jax.specs import LEVITS, REGNETS, LeViTSpec, RegNetSpec

STUDENT = "Aux-S/16"


def cases(asked: Asked) -> Iterator[Case]:
    plain = functools.cache(
        lambda: steps.fitting(asked, steps.recipe_of(asked, STUDENT))
    )
    for what, spec in teachers(asked).items():
        yield Case(
            {"what": what, "teacher": spec.name},
            functools.partial(_measure, asked, spec, plain),
        )


def teachers(asked: Asked) -> dict[str, specs.Spec]:
    """The networks that teach, the one with a target first."""
    if asked.toy:
        same = dict(image_size=32, num_classes=10)
        two = dict.fromkeys(("widths", "depths", "heads"), (1, 1))
        return {
            "LeViT-384": LeViTSpec(
                **{**two, "widths": (16, 16), "key_dims": (8, 8)},
                attn_ratios=(2.0, 2.0),
                down_heads=(2,),
                down_key_dims=(8,),
                down_attn_ratios=(4.0,),
                **same,
            ),
            "RegNetY-160": RegNetSpec(
                widths=(16, 16), depths=(1, 1), group_width=8, **same
            ),
            "ViT-S": specs.named("vit_nano_patch16_L2", **same),
        }
    return {
        "LeViT-384": LEVITS["levit_384"],
        "RegNetY-160": REGNETS["regnety_160"],
        "ViT-S": specs.named("vit_small_patch16_L12"),
    }


def _measure(asked: Asked, spec: specs.Spec, plain) -> Row:
    without: step.Training = plain()
    recipe = dataclasses.replace(without.recipe, loss=Loss(kind="soft"), teacher=spec)
    teacher = Predictor(Network(spec, weights(spec)), step.IMAGENET, steps.BF16)
    taught = steps.fitting(asked, recipe, teacher, without.batch_size)
    if taught.batch_size != without.batch_size:
        raise MemoryError(f"beside {spec.name} a batch of {without.batch_size}")
    calls = {
        "taught": lambda: taught(asked.steps),
        "plain": lambda: without(asked.steps),
    }
    times = measure.in_turns(calls, asked.repeats)
    ratios = [a / b for a, b in zip(times["taught"], times["plain"], strict=True)]
    row = {"step_over_plain": measure.short(statistics.median(ratios))}
    counted = [flops.step_flops(recipe.spec, teacher=t) for t in (spec, None)]
    row["flops_over_plain"] = measure.short(counted[0] / counted[1])
    return row | steps.row_of(asked, taught, times["taught"], rates.matmul(asked))


def weights(spec: specs.Spec) -> trees.Tree:
    """Numpy parameters with which activations neither vanish nor overflow."""
    random = np.random.default_rng(0)

    def draw(name: str, leaf) -> np.ndarray:
        if name.endswith(("scale", "var")):
            return np.ones(leaf.shape, np.float32)
        if name.endswith(("bias", "mean")):
            return np.zeros(leaf.shape, np.float32)
        values = random.standard_normal(leaf.shape, np.float32)
        return values / np.float32(math.sqrt(math.prod(leaf.shape[:-1])))

    return trees.map_with_name(draw, networks.abstract_params(spec))
