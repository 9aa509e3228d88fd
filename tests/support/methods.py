"""Learngene methods with a phase of each kind, which no shipped method has."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from sws_jax.methods import base, sws
from sws_jax.methods.base import FromRun, Length, Made, Phase
from sws_jax.methods.objectives import Loss
from sws_jax.specs import AuxViTSpec, StitchedSpec

from support.steps import Summed


@dataclasses.dataclass(frozen=True)
class Mapped:
    """Cross entropy, and how far the last tokens, mapped, are from the teacher's."""

    taps: ClassVar[tuple[str, ...]] = ("blocks",)
    needs_teacher: ClassVar[bool] = True

    def init(self, key, student, teacher):
        shape = student.tail.width, teacher.tail.width
        return {"kernel": jnp.zeros(shape), "bias": jnp.zeros(shape[1:])}

    def __call__(self, own, students, targets, teacher):
        (student,) = students
        *_, last = student.taps["blocks"]  # of the segments
        mapped = last[-1] @ own["kernel"] + own["bias"]
        distance = jnp.square(mapped - teacher.taps["blocks"][-1]).mean()
        return Loss().of(student.logits, targets) + distance, {"distance": distance}


def stitched(net):
    """A network whose first block has half the width."""
    narrow = net.replace(depth=1, width=net.width // 2, heads=net.heads // 2)
    return StitchedSpec((narrow, net))


def shorter(spec):
    """The Aux-Net with a block less in its first stage."""
    stages = (spec.stages[0] - 1, *spec.stages[1:])
    return AuxViTSpec(spec.net.replace(depth=sum(stages)), stages)


def alternating(seed, step):
    """The reference alone, and both variants in turn."""
    return (0,) if step % 2 == 0 else (0, 1)


class Kinds(sws.SWS):
    """SWS whose Aux-Net has two variants, and before it a stitched network."""

    name, prefix = "kinds", "kinds-"

    def phases(self, net, request, depths):
        narrow = stitched(net).stem
        start = Made(lambda trained, images: {}, after=("narrow",), images=4)
        spec = AuxViTSpec(net.replace(depth=sum(request.stages)), request.stages)
        return (
            Phase("narrow", narrow, Loss()),
            Phase("stitched", stitched(net), Mapped(), base.ANCESTOR, start=start),
            Phase(
                "elastic",
                spec,
                Summed(),
                variants=(spec, shorter(spec)),
                pick=alternating,
            ),
        )


class Searched(base.BlockMethod):
    """The ancestor's largest block is the gene: which one it is, only numbers tell."""

    name = "searched"

    def phases(self, net, request, depths):
        start = FromRun(base.ANCESTOR)
        return (Phase("search", None, start=start, length=Length(0)),)

    def extract(self, trained, net):
        gene = super().extract(trained, net)
        sizes = np.abs(gene.params["blocks"]["attn"]["proj"]["bias"]).sum(-1)
        stages = (1 + int(sizes.argmax()),)
        about = gene.description.replace(stages=stages)
        return dataclasses.replace(gene, description=about)

    def allot(self, depth, stages):
        return (0,) * depth
