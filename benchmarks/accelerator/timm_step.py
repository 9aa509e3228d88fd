"""The step of `benchmarks.accelerator.steps` in PyTorch, with a network of timm.

    python -m benchmarks.accelerator.timm_step cpu|gpu SPEC BATCH compiled|eager

SPEC is JSON of `sws_jax.specs`. A process of its own, as a compiler that crashes or
hangs is to take nothing with it. It prints a line of JSON when it has taken its first
steps; for each number on a line of its input it takes so many more, and prints their
seconds; the end of its input ends it.

Both sides do the same work: bfloat16 by autocast over float32 weights, fused attention,
fused AdamW, the moving average of the weights, one batch that stays on the device.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from typing import Any

from benchmarks import peers
from sws_jax.pixels import IMAGENET_MEAN, IMAGENET_STD

RATE, DECAY, EMA = 1e-4, 0.05, 0.99996


def main(platform: str, spec: str, batch: str, mode: str) -> None:
    # What libraries print must not end up between the answers.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(line: dict) -> None:
        print(json.dumps(line), file=out, flush=True)

    for name in ("torch", "timm"):
        if importlib.util.find_spec(name) is None:
            answer({"missing": f"{name} is not installed"})
            return
    import torch

    if platform == "gpu" and not torch.cuda.is_available():
        answer({"missing": "this PyTorch sees no GPU"})
        return
    device = {"gpu": "cuda", "cpu": "cpu"}[platform]
    before = time.perf_counter()
    training = Training(device, json.loads(spec), int(batch), mode == "compiled")
    training(3)
    answer({"params": training.num_params, "start_s": time.perf_counter() - before})
    for line in sys.stdin:
        before = time.perf_counter()
        training(int(line))
        answer({"seconds": time.perf_counter() - before})


class Training:
    """A network in training, stepped at will on one batch.

    Args:
      device: PyTorch's name of it.
      spec: fields of a `ViTSpec` with a class token.
      batch_size: of the images.
      compiled: forward and backward go through torch.compile.
    """

    def __init__(
        self, device: str, spec: dict[str, Any], batch_size: int, compiled: bool
    ):
        import torch

        with peers.without_torchvision():
            from timm.models.vision_transformer import VisionTransformer

        self.torch, self.device = torch, device
        torch.set_float32_matmul_precision("high")  # TF32, as JAX
        model = VisionTransformer(
            img_size=tuple(spec["image_size"]),
            patch_size=spec["patch_size"],
            num_classes=spec["num_classes"],
            embed_dim=spec["width"],
            depth=spec["depth"],
            num_heads=spec["heads"],
            mlp_ratio=spec["mlp_ratio"],
        )
        model = model.to(self.device).train()
        self.weights = list(model.parameters())
        self.average = [weight.detach().clone() for weight in self.weights]
        self.optimizer = torch.optim.AdamW(
            self.weights, lr=RATE, weight_decay=DECAY, fused=True
        )
        draw = torch.Generator().manual_seed(0)
        shape = (batch_size, *spec["image_size"], spec["channels"])
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw)
        labels = torch.randint(0, spec["num_classes"], shape[:1], generator=draw)
        self.images, self.labels = images.to(self.device), labels.to(self.device)
        mean = torch.tensor(IMAGENET_MEAN, device=self.device)
        std = torch.tensor(IMAGENET_STD, device=self.device)

        def loss(images, labels):
            x = ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2)
            with torch.autocast(self.device, torch.bfloat16):
                logits = model(x)
            return torch.nn.functional.cross_entropy(logits.float(), labels)

        self.loss = torch.compile(loss) if compiled else loss

    @property
    def num_params(self) -> int:
        return sum(weight.numel() for weight in self.weights)

    def __call__(self, count: int) -> None:
        """Takes so many steps and waits for the last."""
        for _ in range(count):
            loss = self.loss(self.images, self.labels)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            with self.torch.no_grad():
                self.torch._foreach_lerp_(self.average, self.weights, 1 - EMA)
        loss.item()
        if self.device == "cuda":
            self.torch.cuda.synchronize()


if __name__ == "__main__":
    main(*sys.argv[1:])
