"""The same training step in PyTorch, in the same run.

Networks of timm with this project's sizes: ViTs and, with the same blocks applied
again, Aux-Nets; at 224 px, and the small ones that two CPU cores train. Where timm is
missing, ViTs of transformers. AdamW, hard labels, no augmentation and no stochastic
depth on either side, so that both do the same work. bf16 is autocast over float32
weights, which is what this project's dtype means. In float32, both may use an
accelerator's tensor cores with rounded inputs (TF32), as JAX does by default.

PyTorch is at its best: fused attention, the fused AdamW, and of all cores and one, of
eager and compiled (where there is a compiler), what a few steps show to be fastest
(`way`). Ours is as the recipes have it: small networks are rematerialised.

How to read it: all are timed in turns, and `ours_over_peer` is the median of the ratios
of neighbours: below 1, this project is faster. `plain` is the same network without the
rules of this backend (`sws_jax.models.rules`). Networks are scanned; the difference
that unrolling makes is in `benchmarks.step`. Without PyTorch the table is one row with
the reason.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import os
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax

from benchmarks import measure, step
from benchmarks.measure import Row, Settings
from sws_jax import trees
from sws_jax.models import networks
from sws_jax.pixels import Normalization, default_normalization
from sws_jax.runtime import host, words
from sws_jax.specs import AuxViTSpec, Compute, ViTSpec
from sws_jax.training import step as steps

NETWORKS = ("vit_{}_patch16_L12", "aux_vit_{}_patch16_3-3-4-3-3")
QUICK = ("vit_{}_patch16_L2", "aux_vit_{}_patch16_1-2")
# In the JSON file, and not in the table.
HIDDEN = ("peer", "dtype", "plain_step_ms")
RATE, DECAY = 1e-4, 0.05
# A timed call takes as many steps as this many seconds hold, at least one.
WINDOW = 0.5


def run(settings: Settings) -> list[Row]:
    family, build = _family()
    if build is None:
        row: Row = {"network": "-", "note": f"skipped: {family}"}
        measure.say("peers", row)
        return [row]
    rows = []
    for spec, remat, batch_size in _networks(settings):
        for dtype in ("float32", "bfloat16")[: 1 + settings.accelerator]:
            about: Row = {"network": spec.name, "px": spec.image_size[0]}
            about |= {"peer": family, "dtype": dtype, "batch": batch_size}
            figures = functools.partial(
                _measure, spec, Compute(dtype, remat), build, batch_size, settings
            )
            rows.append(measure.measured("peers", about, figures))
    return rows


def _networks(settings: Settings) -> Iterator[tuple[ViTSpec | AuxViTSpec, bool, int]]:
    """What is trained, whether rematerialised, and how many images a batch has."""
    for size in settings.sizes:
        for name in QUICK if settings.quick else NETWORKS:
            spec = step.network(name.format(size), settings, pool="token")
            yield spec, False, settings.batch_size
    if not settings.quick:
        yield from SMALL


# Of small images: more tokens than features of a head, the recipe's, the digits.
SMALL = tuple(
    (ViTSpec(**net, depth=12, heads=4, pool="token"), True, batch_size)
    for net, batch_size in (
        (dict(image_size=32, patch_size=4, width=128, num_classes=100), 64),
        (dict(image_size=32, patch_size=8, width=64, num_classes=100), 128),
        (dict(image_size=8, patch_size=4, width=64, num_classes=10, channels=1), 64),
    )
)


def _measure(
    spec: ViTSpec | AuxViTSpec,
    compute: Compute,
    build: Callable,
    batch_size: int,
    settings: Settings,
) -> Row:
    if isinstance(spec, AuxViTSpec) and build is not _timm:
        return {"note": "skipped: blocks are applied again with timm alone"}
    normalization = default_normalization(spec.channels)
    calls: dict[str, Callable] = {}
    for name, backend in (("ours", "default"), ("plain", "plain")):
        by = dataclasses.replace(compute, backend=backend)
        recipe = steps.Recipe(spec, normalization, by)
        calls[name] = step.Training(recipe, batch_size)
    theirs = Peer(spec, compute.dtype, build, batch_size, normalization)
    known = trees.count(networks.abstract_params(spec))
    if theirs.num_params != known:  # then the ratio would compare two networks
        return {
            "note": f"skipped: {theirs.num_params:,} parameters, ours has {known:,}"
        }
    for training in calls.values():
        training.start()
    calls["peer"] = theirs
    way = theirs.take_best(settings)
    once = min(measure.seconds(call) for call in calls.values())
    count = 5 if settings.accelerator else max(1, int(WINDOW / once))
    if settings.quick:
        count = 1
    turns = {name: functools.partial(call, count) for name, call in calls.items()}
    times = measure.in_turns(turns, settings.repeats)
    row: Row = {"way": way}
    for name, values in times.items():
        row[f"{name}_step_ms"] = measure.figure([1e3 * s / count for s in values])
    for name in ("ours", "plain"):
        ratios = [a / b for a, b in zip(times[name], times["peer"], strict=True)]
        row[f"{name}_over_peer"] = measure.short(statistics.median(ratios))
    for name in ("ours", "peer"):
        milliseconds = row[f"{name}_step_ms"]["median"]
        row[f"{name}_images_per_second"] = measure.short(
            1e3 * batch_size / milliseconds
        )
    return row


class Peer:
    """A network in training in PyTorch, stepped at will on one batch."""

    def __init__(
        self,
        spec: ViTSpec | AuxViTSpec,
        dtype: str,
        build: Callable,
        batch_size: int,
        normalization: Normalization,
    ):
        import torch

        self.torch = torch
        # Where JAX found no accelerator, PyTorch must not use one either.
        self.device = {"gpu": "cuda", "cpu": "cpu"}[jax.devices()[0].platform]
        self.autocast = dtype == "bfloat16"
        if self.device == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32, as JAX
        self.model = build(spec).to(self.device).train()
        self.forward: Callable = self.model
        self.threads = torch.get_num_threads()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=RATE, weight_decay=DECAY, fused=True
        )
        draw = torch.Generator().manual_seed(0)
        shape = (batch_size, *spec.image_size, spec.channels)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw)
        labels = torch.randint(0, spec.num_classes, (batch_size,), generator=draw)
        self.images = images.to(self.device)
        self.labels = labels.to(self.device)
        self.mean = torch.tensor(normalization.mean, device=self.device)
        self.std = torch.tensor(normalization.std, device=self.device)

    @property
    def num_params(self) -> int:
        return sum(leaf.numel() for leaf in self.model.parameters())

    def take_best(self, settings: Settings) -> str:
        """Goes on in the way that a few steps show to be the fastest.

        Returns:
          Its name.
        """
        self.threads = min(self._threads(), key=self._least)
        self.forward = self.model
        eager = self._least(self.threads)
        if settings.quick or not (self.device == "cuda" or _has_compiler()):
            mode = "eager"
        else:
            self.torch.compiler.reset()  # Programs of the networks before this one.
            self.forward = self.torch.compile(self.model)
            mode = "compiled"
            if self._least(self.threads) > eager:
                self.forward, mode = self.model, "eager"
        if self.device != "cpu":
            return mode
        return f"{mode}, {words.many(self.threads, 'thread')}"

    def _threads(self) -> list[int]:
        """Numbers of threads to try."""
        if self.device != "cpu":
            return [self.threads]
        return sorted({1, host.cores()})

    def _least(self, threads: int) -> float:
        """Seconds of a step with so many threads, of a few the least."""
        self.threads = threads
        self(2)
        return min(measure.seconds(self) for _ in range(3))

    def __call__(self, count: int = 1) -> None:
        """Takes so many steps and waits for the last."""
        torch = self.torch
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        for _ in range(count):
            images = (self.images.float() / 255 - self.mean) / self.std
            images = images.permute(0, 3, 1, 2)
            with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
                logits = self.forward(images)
                logits = getattr(logits, "logits", logits)
            loss = torch.nn.functional.cross_entropy(logits.float(), self.labels)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        loss.item()
        if self.device == "cuda":
            torch.cuda.synchronize()


def _has_compiler() -> bool:
    """Whether PyTorch finds a C++ compiler to compile for a CPU with."""
    return bool(shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++"))


def _family() -> tuple[str, Callable | None]:
    """Who brings the peer, and how it is built; or why there is none."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed (pip install torch timm)", None
    import torch

    platform = jax.devices()[0].platform
    if platform not in ("cpu", "gpu"):
        return f"PyTorch's step is not timed on {platform}", None
    if platform == "gpu" and not torch.cuda.is_available():
        return "this PyTorch has no GPU support", None
    for name, build in (("timm", _timm), ("transformers", _transformers)):
        if importlib.util.find_spec(name) is not None:
            return f"{name} {importlib.metadata.version(name)}", build
    return "neither timm nor transformers is installed (pip install timm)", None


def _timm(spec: ViTSpec | AuxViTSpec) -> Any:
    with without_torchvision():
        from timm.models.vision_transformer import VisionTransformer
    net = spec.net
    genes = spec.stages if isinstance(spec, AuxViTSpec) else (1,) * net.depth
    model = VisionTransformer(
        img_size=net.image_size,
        patch_size=net.patch_size,
        in_chans=net.channels,
        num_classes=net.num_classes,
        embed_dim=net.width,
        depth=len(genes),
        num_heads=net.heads,
        mlp_ratio=net.mlp_ratio,
        class_token=net.pool == "token",
        global_pool="token" if net.pool == "token" else "avg",
        fc_norm=False,
    )
    blocks = list(model.blocks)
    model.blocks = type(model.blocks)(
        *(block for block, n in zip(blocks, genes, strict=True) for _ in range(n))
    )
    return model


def _transformers(spec: ViTSpec) -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=spec.width,
        num_hidden_layers=spec.depth,
        num_attention_heads=spec.heads,
        intermediate_size=spec.hidden,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=spec.norm_eps,
        image_size=spec.image_size[0],
        patch_size=spec.patch_size,
        num_channels=spec.channels,
        num_labels=spec.num_classes,
    )
    return ViTForImageClassification(config)


@contextlib.contextmanager
def without_torchvision() -> Iterator[None]:
    """Lets timm be imported where torchvision is missing.

    timm imports it at its start for data transforms, which a training step does not
    use, and torchvision has no build for every PyTorch. Its names are stood in for
    while timm is imported, and removed again, so that nobody else finds them.
    """
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    parts = (
        "", ".datasets", ".models", ".models.feature_extraction", ".ops", ".ops.misc",
        ".transforms", ".transforms.functional", ".utils",
    )  # fmt: skip
    stand_ins = {f"torchvision{part}": mock.MagicMock() for part in parts}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            sys.modules.pop(name, None)
