"""Writes regnet.npz: logits of timm's RegNetY, and the names in Hugging Face's files.

    python -m tests.golden.make_regnet

It needs PyTorch, timm and transformers; `tests/test_regnet.py` reads the file without
them. The network is small and its weights are random. The tests there that need these
libraries build their networks with the functions of this module.
"""

from __future__ import annotations

import pathlib

import numpy as np

from .make_levit import import_timm, logits, save

PATH = pathlib.Path(__file__).with_name("regnet.npz")
# A side that strides do not divide shows where a convolution of stride 2 is padded.
IMAGE_SIZE = (40, 33)
SMALL = dict(
    widths=(8, 16, 24, 48),
    depths=(1, 1, 2, 2),
    group_width=8,
    stem_width=16,
    num_classes=5,
)
# The same network in the numbers from which timm computes widths and depths.
SMALL_TIMM = dict(w0=8, wa=8.0, wm=1.8, depth=6, group_size=8, stem_width=16)


def main() -> None:
    images = np.random.default_rng(0).normal(size=(2, *IMAGE_SIZE, 3))
    images = images.astype(np.float32)
    model = small_timm()
    randomise(model, images)
    save(PATH, model, images, hugging_face(**SMALL))


def named_timm(name: str):
    return import_timm().create_model(name).eval()


def small_timm():
    regnet = import_timm().models.regnet
    config = regnet.RegNetCfg(se_ratio=0.25, **SMALL_TIMM)
    return regnet.RegNet(config, num_classes=SMALL["num_classes"]).eval()


def hugging_face(*, widths, depths, group_width, stem_width, num_classes):
    import transformers

    config = transformers.RegNetConfig(
        embedding_size=stem_width,
        hidden_sizes=list(widths),
        depths=list(depths),
        groups_width=group_width,
        layer_type="y",
        num_labels=num_classes,
    )
    return transformers.RegNetForImageClassification(config).eval()


def randomise(model, images) -> None:
    """Sets random weights, and statistics of norms that are those of no images.

    The statistics are first those of `images`, which keeps activations of order one.
    Means are then shifted, and variances scaled by 0.5 to 2.
    """
    import torch

    draw = torch.Generator().manual_seed(0)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for values in model.parameters():
            if values.ndim > 1:
                fan_in = values[0].numel()
                values.normal_(std=(2 / fan_in) ** 0.5, generator=draw)
            else:
                values.uniform_(-0.3, 0.3, generator=draw)
        for norm in norms:
            norm.weight.uniform_(0.3, 1.2, generator=draw)
            norm.momentum = 1.0
        model.train()
        logits(model, images)
        model.eval()
        for norm in norms:
            mean, var = norm.running_mean, norm.running_var
            mean += 0.3 * var.sqrt() * torch.randn(mean.shape, generator=draw)
            var *= torch.empty_like(var).uniform_(0.5, 2.0, generator=draw)


if __name__ == "__main__":
    main()
