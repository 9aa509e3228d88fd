"""The same training step in PyTorch, in the same run.

A ViT of timm, or else of transformers, with this project's sizes: class token, AdamW,
hard labels, no augmentation and no stochastic depth on either side, so that both do
the same work. PyTorch runs eagerly, with its own defaults (fused attention included);
bf16 is autocast over float32 weights, which is what this project's dtype means. In
float32, both may use an accelerator's tensor cores with rounded inputs (TF32), as JAX
does unless told otherwise.

How to read it: the two are timed in turns, and `ours_over_peer` is the median of the
ratios of neighbours: below 1, this project is faster. Networks are scanned; the
difference that unrolling makes is in `benchmarks.step`. Without PyTorch the table is
one row with the reason.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
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
from sws_jax.specs import Compute, ViTSpec
from sws_jax.training import step as steps

DEPTHS = (12,)
RATE, DECAY = 1e-4, 0.05


def run(settings: Settings) -> list[Row]:
    family, build = _family()
    if build is None:
        row: Row = {"network": "-", "note": f"skipped: {family}"}
        measure.say("peers", row)
        return [row]
    rows = []
    for size in settings.sizes:
        for depth in (2,) if settings.quick else DEPTHS:
            name = f"vit_{size}_patch16_L{depth}"
            spec = step.network(name, settings, pool="token")
            assert isinstance(spec, ViTSpec)
            dtypes = ("float32", "bfloat16")[: 1 + settings.accelerator]
            for dtype in dtypes:
                about: Row = {"network": spec.name, "peer": family, "dtype": dtype}
                about["batch"] = settings.batch_size
                figures = functools.partial(_measure, spec, dtype, build, settings)
                rows.append(measure.measured("peers", about, figures))
    return rows


def _measure(spec: ViTSpec, dtype: str, build: Callable, settings: Settings) -> Row:
    recipe = steps.Recipe(spec, step.IMAGENET, Compute(dtype))
    ours = step.Training(recipe, settings.batch_size)
    theirs = Peer(spec, dtype, build, settings.batch_size)
    known = trees.count(networks.abstract_params(spec))
    if theirs.num_params != known:  # then the ratio would compare two networks
        return {
            "note": f"skipped: {theirs.num_params:,} parameters, ours has {known:,}"
        }
    ours.start()
    theirs(2)
    count = 5 if settings.accelerator else 1
    calls = {"ours": lambda: ours(count), "peer": lambda: theirs(count)}
    times = measure.in_turns(calls, settings.repeats)
    ratios = [a / b for a, b in zip(times["ours"], times["peer"], strict=True)]
    row: Row = {
        f"{name}_step_ms": measure.figure([1e3 * s / count for s in values])
        for name, values in times.items()
    }
    row["ours_over_peer"] = measure.short(statistics.median(ratios))
    return row


class Peer:
    """A network in training in PyTorch, stepped at will on one batch."""

    def __init__(self, spec: ViTSpec, dtype: str, build: Callable, batch_size: int):
        import torch

        self.torch = torch
        # Where JAX found no accelerator, PyTorch must not use one either.
        self.device = {"gpu": "cuda", "cpu": "cpu"}[jax.devices()[0].platform]
        self.autocast = dtype == "bfloat16"
        if self.device == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32, as JAX
        self.model = build(spec).to(self.device).train()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=RATE, weight_decay=DECAY
        )
        draw = torch.Generator().manual_seed(0)
        shape = (batch_size, *spec.image_size, spec.channels)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw)
        labels = torch.randint(0, spec.num_classes, (batch_size,), generator=draw)
        self.images = images.to(self.device)
        self.labels = labels.to(self.device)
        self.mean = torch.tensor(step.IMAGENET.mean, device=self.device)
        self.std = torch.tensor(step.IMAGENET.std, device=self.device)

    @property
    def num_params(self) -> int:
        return sum(leaf.numel() for leaf in self.model.parameters())

    def __call__(self, count: int = 1) -> None:
        """Takes so many steps and waits for the last."""
        torch = self.torch
        for _ in range(count):
            images = (self.images.float() / 255 - self.mean) / self.std
            images = images.permute(0, 3, 1, 2)
            with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
                logits = self.model(images)
                logits = getattr(logits, "logits", logits)
            loss = torch.nn.functional.cross_entropy(logits.float(), self.labels)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        loss.item()
        if self.device == "cuda":
            torch.cuda.synchronize()


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


def _timm(spec: ViTSpec) -> Any:
    with without_torchvision():
        from timm.models.vision_transformer import VisionTransformer
    return VisionTransformer(
        img_size=spec.image_size,
        patch_size=spec.patch_size,
        num_classes=spec.num_classes,
        embed_dim=spec.width,
        depth=spec.depth,
        num_heads=spec.heads,
        mlp_ratio=spec.mlp_ratio,
    )


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
