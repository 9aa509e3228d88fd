"""Writes levit.npz: logits of timm's LeViT, and the names in Hugging Face's files.

    python -m tests.golden.make_levit

It needs PyTorch, timm from 0.9 on and transformers; `tests/test_levit.py` reads the
file without them. The network is small and its weights are random. The tests there
that need these libraries build their networks with the functions of this module.
"""

from __future__ import annotations

import pathlib

import numpy as np

PATH = pathlib.Path(__file__).with_name("levit.npz")
IMAGE_SIZE = (80, 48)  # 5 x 3, 3 x 2 and 2 x 1 tokens
SMALL = dict(
    widths=(8, 16, 24), depths=(2, 1, 2), heads=(2, 3, 4), key_dims=(4, 4, 4),
    num_classes=5,
)  # fmt: skip


def main() -> None:
    # float16 takes half the room in the file, and is exact in float32.
    images = draw_images(2, IMAGE_SIZE).astype(np.float16)
    model = small_timm()
    randomise(model, images)
    save(PATH, model, images, hugging_face(**SMALL))


def save(path: pathlib.Path, model, images, other) -> None:
    """Writes weights, images and logits, and the names of another library's weights."""
    import torch
    import transformers

    libraries = (torch, import_timm(), transformers)
    np.savez_compressed(
        path,
        images=images,
        logits=logits(model, images),
        hugging_face=[f"{k} {list(v.shape)}" for k, v in other.state_dict().items()],
        versions=[f"{m.__name__} {m.__version__}" for m in libraries],
        **{f"weights/{k}": v.numpy() for k, v in model.state_dict().items()},
    )
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
    print(logits(model, images))


def import_timm():
    from benchmarks import peers

    with peers.without_torchvision():
        import timm
    return timm


def named_timm(name: str, **fields):
    return import_timm().create_model(name, **fields).eval()


def small_timm(image_size=IMAGE_SIZE):
    levit = import_timm().models.levit
    # Between stages timm has as many heads as the width before is key sizes.
    model = levit.LevitDistilled(
        img_size=image_size,
        num_classes=SMALL["num_classes"],
        embed_dim=SMALL["widths"],
        key_dim=SMALL["key_dims"][0],
        depth=SMALL["depths"],
        num_heads=SMALL["heads"],
    )
    return model.eval()


def hugging_face(
    *, widths, depths, heads, key_dims, num_classes, image_size=224, distilled=True
):
    """The LeViT of transformers; ratios are its defaults, 2, and 4 between stages."""
    import transformers

    config = transformers.LevitConfig(
        image_size=image_size,
        hidden_sizes=list(widths),
        depths=list(depths),
        num_attention_heads=list(heads),
        key_dim=list(key_dims),
        num_labels=num_classes,
    )
    if distilled:
        return transformers.LevitForImageClassificationWithTeacher(config).eval()
    return transformers.LevitForImageClassification(config).eval()


def draw_images(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Images [count, *size, 3] with patches and colours that differ."""
    random = np.random.default_rng(seed)
    height, width = size
    images = random.normal(size=(count, height // 16, width // 16, 3))
    images = images.repeat(16, axis=1).repeat(16, axis=2)
    images += random.normal(size=(count, 1, 1, 3))
    images += random.normal(scale=0.5, size=(count, *size, 3))
    return images.astype(np.float32)


def randomise(model, images) -> None:
    """Sets random weights, and statistics of norms that are those of no images.

    The statistics are first those of `images`, which keeps activations of order one,
    and are then shifted. Attention over random tokens gives outputs that vary little:
    without an added variance, norm after norm would blow up every rounding error. The
    norms of heads come last, with the statistics that the other norms lead to.
    """
    import torch

    draw = torch.Generator().manual_seed(0)
    norms: dict[bool, list] = {False: [], True: []}
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            norms[name.startswith(("head", "classifier"))].append(module)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if name.endswith("attention_biases"):
                values.normal_(generator=draw)
            elif values.ndim > 1:
                values.normal_(std=values[0].numel() ** -0.5, generator=draw)
            else:
                values.uniform_(-0.3, 0.3, generator=draw)
        for some in norms.values():
            for norm in some:
                norm.weight.uniform_(0.3, 1.2, generator=draw)
                norm.momentum = 1.0
                norm.train()
            logits(model, images)
            for norm in some:
                norm.eval()
                mean, var = norm.running_mean, norm.running_var
                var += 0.1
                mean += 0.1 * var.sqrt() * torch.randn(mean.shape, generator=draw)
                var *= torch.empty_like(var).uniform_(0.5, 2.0, generator=draw)


def logits(model, images) -> np.ndarray:
    """Logits [batch, classes] of images [batch, height, width, channels]."""
    import torch

    inputs = torch.from_numpy(np.asarray(images, np.float32))
    with torch.no_grad():
        out = model(inputs.permute(0, 3, 1, 2).contiguous())
    return getattr(out, "logits", out).numpy()


if __name__ == "__main__":
    main()
