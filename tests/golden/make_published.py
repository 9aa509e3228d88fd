"""Writes published.npz: the published networks, their transfer and their training.

    python -m tests.golden.make_published

It needs PyTorch and timm; `tests/test_published.py` reads the file without them. The
Aux-Nets of SWS (2404.16897) and TLEG (2312.05614) are implemented here independently of
this project, as functions of the tensors in a published file; Des-Nets are timm's.
Networks are small and their weights random.

Keys of the file, where a state is one vector, which `read_state` takes apart::

    images [steps, batch, height, width, channels]
        float16; exact in float32. Logits are those of the first batch.
    targets, teacher_logits [steps, batch, classes]
    rates [steps]
    train/names, sws/names, tleg/names
        "name [shape]" of every tensor, as published, in the order of the states
    train/initial, sws/state, tleg/state
        states of the Aux-Nets `TRAIN`, `SWS` and `TLEG`
    train/logits, sws/logits, tleg/logits [batch, classes]
        of those Aux-Nets; train/logits before training
    train/tau3 [2]
        losses of train/logits at temperature 3, in the order of `ALPHAS`
    train/{alpha}/losses [steps]
        each computed before its update
    train/{alpha}/weights, train/{alpha}/ema/{decay}
        states after ten steps, for `ALPHAS` and `DECAYS`
    sws/plan/{depth} [depth]
        the stage that every block copies, for the depths of `PLANS`
    sws/des/{way}/{depth} [batch, classes]
        logits of the descendant with that plan, for each of `WAYS`
    tleg/des/{way} [depths, batch, classes]
        logits of descendants of the depths `DEPTHS`
    versions
"""

from __future__ import annotations

import json
import pathlib

import numpy as np

from .make_levit import import_timm

PATH = pathlib.Path(__file__).with_name("published.npz")
IMAGE_SIZE, PATCH, CHANNELS, CLASSES = 8, 4, 3, 5
STEPS, BATCH = 10, 6
ALPHAS = (0.5, 1.0)
DECAYS = (0.9, 0.99996)  # the published one hardly moves in ten steps
# Stages are how often each block is applied. A Des-Net has half the heads, as the
# published Des-S has 6 of size 64 where Aux-S has 12 of size 32: tensors of the same
# shapes are another function.
TRAIN = dict(width=12, heads=3, stages=(2, 1, 2))
SWS = dict(width=16, heads=4, stages=(3, 3, 4, 3, 3), des_heads=2)
TLEG = dict(width=12, heads=4, layers=12, des_heads=2)
DEPTHS = tuple(range(3, 17))
PLANS = {  # 12 and 16 as published, and one more
    6: (0, 0, 1, 2, 3, 4),
    12: (0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4),
    16: (0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4),
}
# The function of a Des-Net with the transferred weights: "same" is the Aux-Net's;
# "timm" averages before the norm, and has timm's epsilon; "published" divides the width
# into `des_heads` besides.
WAYS = ("same", "timm", "published")
AUX_EPS, DES_EPS = 1e-5, 1e-6


# Functions that need no PyTorch.


def load() -> dict[str, np.ndarray]:
    with np.load(PATH) as file:
        return dict(file)


def read_state(golden, key: str) -> dict[str, np.ndarray]:
    """The tensors of a state, by published names."""
    lines = [str(line).split(" ", 1) for line in golden[key.split("/")[0] + "/names"]]
    shapes = {name: json.loads(shape) for name, shape in lines}
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes.values()])
    parts = np.split(golden[key], ends[:-1])
    return {
        name: part.reshape(shape)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


def names(tensors) -> list[str]:
    return [f"{name} {list(value.shape)}" for name, value in tensors.items()]


def vector(tensors) -> np.ndarray:
    return np.concatenate([np.asarray(value).ravel() for value in tensors.values()])


def block_shapes(width: int) -> dict[str, tuple[int, ...]]:
    linears = {
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "mlp.fc1": (4 * width, width),
        "mlp.fc2": (width, 4 * width),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for module in ("norm1", *linears, "norm2"):
        shapes[f"{module}.weight"] = linears.get(module, (width,))
        shapes[f"{module}.bias"] = linears.get(module, (width,))[:1]
    return shapes


def rest_shapes(width: int) -> dict[str, tuple[int, ...]]:
    return {
        "pos_embed": (1, (IMAGE_SIZE // PATCH) ** 2, width),
        "patch_embed.proj.weight": (width, CHANNELS, PATCH, PATCH),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (CLASSES, width),
        "head.bias": (CLASSES,),
    }


def draw_tensor(random, name: str, shape) -> np.ndarray:
    """Random values, of which every tensor matters; exact in float16, to pack well."""
    if name == "pos_embed":
        values = random.normal(scale=0.5, size=shape)
    elif len(shape) > 1:
        values = random.normal(scale=np.prod(shape[1:]) ** -0.5, size=shape)
    else:
        values = random.uniform(-1.0, 1.0, size=shape)
        if is_scale(name):
            values = 1.0 + values / 2
    return values.astype(np.float16).astype(np.float32)


def is_scale(name: str) -> bool:
    return name.startswith("norm") and name.endswith("weight")


def draw_sws(seed: int, width: int, stages) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    drawn = {k: draw_tensor(random, k, v) for k, v in rest_shapes(width).items()}
    for s in range(len(stages)):
        for name, shape in block_shapes(width).items():
            drawn[sws_name(name, s)] = draw_tensor(random, name, shape)
    return drawn


def draw_train(seed: int) -> dict[str, np.ndarray]:
    """The network to train, whose keys' biases hardly move.

    Such a bias shifts all scores of a query alike, on which softmax does not depend:
    its gradient is 0, and the computed one is rounding noise. Adam divides that by its
    own size plus 1e-8. Unless the noise is far below 1e-8, the bias then walks at
    random, and differently on each machine. The noise is proportional to the queries
    and to the weights of the head. Both are drawn small here, and keys so much larger
    that the scores stay the same.
    """
    width = TRAIN["width"]
    drawn = draw_sws(seed, width, TRAIN["stages"])
    drawn["head.weight"] /= 8
    for name, values in drawn.items():
        if "attn.qkv" in name:
            values[:width] /= 16
            values[width : 2 * width] *= 16
    return drawn


def draw_tleg(seed: int, width: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    drawn = {k: draw_tensor(random, k, v) for k, v in rest_shapes(width).items()}
    for name, shape in block_shapes(width).items():
        base, slope = (draw_tensor(random, name, shape) for _ in range(2))
        slope -= is_scale(name)
        drawn[sws_name(name, 0) + "_base"] = base
        drawn[sws_name(name, 0) + "_ilayer"] = slope
    return drawn


def sws_name(name: str, s: int) -> str:
    """The published name: "attn.qkv.weight" of stage 0 is
    "blocks.block.attn.qkv.instances.0.weight"."""
    module, leaf = name.rsplit(".", 1)
    return f"blocks.block.{module}.instances.{s}.{leaf}"


def draw_inputs(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    size = (STEPS, BATCH, IMAGE_SIZE, IMAGE_SIZE, CHANNELS)
    labels = random.integers(CLASSES, size=(2, STEPS, BATCH))
    smooth = 0.9 * np.eye(CLASSES)[labels] + 0.1 / CLASSES
    share = random.uniform(size=(STEPS, BATCH, 1))
    warmup, decay = np.linspace(0.1, 1.0, 4), np.cos(np.linspace(0.2, 1.4, STEPS - 4))
    drawn = {
        "targets": share * smooth[0] + (1 - share) * smooth[1],
        "teacher_logits": random.normal(scale=2.0, size=(STEPS, BATCH, CLASSES)),
        "rates": 1e-3 * np.concatenate([warmup, decay]),
    }
    images = random.normal(size=size).astype(np.float16)
    return {"images": images, **{k: v.astype(np.float32) for k, v in drawn.items()}}


# Functions that need PyTorch; a state is a dictionary of its tensors by published name.


def to_torch(arrays, dtype: str = "float32") -> dict:
    import torch

    return {k: torch.tensor(v, dtype=getattr(torch, dtype)) for k, v in arrays.items()}


def sws_blocks(state, plan) -> list[dict]:
    """Tensors of every applied block, shared between those of one stage."""
    width = state["norm.weight"].numel()
    return [{k: state[sws_name(k, s)] for k in block_shapes(width)} for s in plan]


def tleg_blocks(state, depth: int) -> list[dict]:
    """Tensors of every block: base + l/depth of the slope, l from 0."""
    width = state["norm.weight"].numel()
    return [
        {
            k: state[sws_name(k, 0) + "_base"]
            + layer / depth * state[sws_name(k, 0) + "_ilayer"]
            for k in block_shapes(width)
        }
        for layer in range(depth)
    ]


def plan_of(stages) -> tuple[int, ...]:
    return tuple(s for s, count in enumerate(stages) for _ in range(count))


def aux_logits(state, blocks, images, heads: int):
    """Logits [batch, classes] of an Aux-Net; images [batch, height, width, channels].

    No class token. Every token is normalised before their mean is taken.
    """
    from torch.nn import functional as F

    def linear(x, owner, name):
        return F.linear(x, owner[f"{name}.weight"], owner[f"{name}.bias"])

    def norm(x, owner, name):
        weight, bias = owner[f"{name}.weight"], owner[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, AUX_EPS)

    def attention(x, block):
        batch, count, width = x.shape
        qkv = linear(x, block, "attn.qkv").view(batch, count, 3, heads, width // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [batch, heads, tokens, head size]
        scores = q @ k.transpose(-2, -1) * (width // heads) ** -0.5
        mixed = scores.softmax(dim=-1) @ v
        mixed = mixed.transpose(1, 2).reshape(batch, count, width)
        return linear(mixed, block, "attn.proj")

    def mlp(x, block):
        return linear(F.gelu(linear(x, block, "mlp.fc1")), block, "mlp.fc2")

    weight, bias = (state[f"patch_embed.proj.{leaf}"] for leaf in ("weight", "bias"))
    x = F.conv2d(images.permute(0, 3, 1, 2), weight, bias, stride=weight.shape[-1])
    x = x.flatten(2).transpose(1, 2) + state["pos_embed"]
    for block in blocks:
        x = x + attention(norm(x, block, "norm1"), block)
        x = x + mlp(norm(x, block, "norm2"), block)
    return linear(norm(x, state, "norm").mean(dim=1), state, "head")


def des_net(state, blocks, way: str, *, width: int, heads: int, des_heads: int):
    """timm's ViT after the published transfer, which copies the tensors of blocks."""
    import functools

    import torch

    timm = import_timm()
    same = way == "same"
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=IMAGE_SIZE,
        patch_size=PATCH,
        in_chans=CHANNELS,
        num_classes=CLASSES,
        embed_dim=width,
        depth=len(blocks),
        num_heads=des_heads if way == "published" else heads,
        class_token=False,
        global_pool="avg",
        fc_norm=not same,
        norm_layer=functools.partial(
            torch.nn.LayerNorm, eps=AUX_EPS if same else DES_EPS
        ),
    )
    tensors = {k: v for k, v in state.items() if not k.startswith("blocks.")}
    if not same:
        for leaf in ("weight", "bias"):
            tensors[f"fc_norm.{leaf}"] = tensors.pop(f"norm.{leaf}")
    for number, block in enumerate(blocks):
        tensors.update({f"blocks.{number}.{k}": v for k, v in block.items()})
    model.to(state["norm.weight"].dtype).load_state_dict(tensors)
    return model.eval()


def timm_logits(model, images):
    return model(images.permute(0, 3, 1, 2).contiguous())


def loss(logits, targets, teacher_logits, alpha: float, tau: float = 1.0):
    """The published loss, whose divergence is divided by batch x classes."""
    from torch.nn import functional as F

    labels = -(targets * F.log_softmax(logits, dim=-1)).sum(dim=-1).mean()
    divergence = F.kl_div(
        F.log_softmax(logits / tau, dim=1),
        F.log_softmax(teacher_logits / tau, dim=1),
        reduction="sum",
        log_target=True,
    )
    return (1 - alpha) * labels + alpha * divergence * tau**2 / logits.numel()


def train(initial, inputs, alpha: float, dtype: str = "float32"):
    """Losses, weights and moving averages by decay, after all steps of AdamW."""
    import torch

    weights = {k: v.requires_grad_() for k, v in to_torch(initial, dtype).items()}
    inputs = to_torch(inputs, dtype)
    averages = {d: {k: v.detach().clone() for k, v in weights.items()} for d in DECAYS}
    bare = [k for k, v in weights.items() if v.ndim == 1 or k == "pos_embed"]
    groups = [
        {"params": [weights[k] for k in bare], "weight_decay": 0.0},
        {"params": [v for k, v in weights.items() if k not in bare]},
    ]
    optimizer = torch.optim.AdamW(
        groups, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05
    )
    plan, losses = plan_of(TRAIN["stages"]), []
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = float(inputs["rates"][step])
        logits = aux_logits(
            weights, sws_blocks(weights, plan), inputs["images"][step], TRAIN["heads"]
        )
        teacher_logits = inputs["teacher_logits"][step]
        value = loss(logits, inputs["targets"][step], teacher_logits, alpha)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
        with torch.no_grad():
            for decay, average in averages.items():
                for k, v in average.items():
                    v.mul_(decay).add_(weights[k], alpha=1 - decay)
    return losses, {k: v.detach() for k, v in weights.items()}, averages


def make() -> dict[str, np.ndarray]:
    """The arrays of the file."""
    import torch

    inputs = draw_inputs(seed=0)
    arrays: dict = dict(inputs)
    first = {k: v[0] for k, v in to_torch(inputs).items()}
    images = first["images"]

    drawn = draw_train(seed=1)
    arrays["train/names"], arrays["train/initial"] = names(drawn), vector(drawn)
    state = to_torch(drawn)
    blocks = sws_blocks(state, plan_of(TRAIN["stages"]))
    logits = aux_logits(state, blocks, images, TRAIN["heads"])
    arrays["train/logits"] = logits
    arrays["train/tau3"] = [
        loss(logits, first["targets"], first["teacher_logits"], alpha, 3.0)
        for alpha in ALPHAS
    ]
    for alpha in ALPHAS:
        losses, weights, averages = train(drawn, inputs, alpha)
        arrays[f"train/{alpha}/losses"] = losses
        arrays[f"train/{alpha}/weights"] = vector(weights)
        for decay, average in averages.items():
            arrays[f"train/{alpha}/ema/{decay}"] = vector(average)

    with torch.no_grad():
        drawn = draw_sws(2, SWS["width"], SWS["stages"])
        arrays["sws/names"], arrays["sws/state"] = names(drawn), vector(drawn)
        state = to_torch(drawn)
        blocks = sws_blocks(state, plan_of(SWS["stages"]))
        arrays["sws/logits"] = aux_logits(state, blocks, images, SWS["heads"])
        fields = {k: SWS[k] for k in ("width", "heads", "des_heads")}
        for depth, plan in PLANS.items():
            arrays[f"sws/plan/{depth}"] = plan
            for way in WAYS:
                model = des_net(state, sws_blocks(state, plan), way, **fields)
                arrays[f"sws/des/{way}/{depth}"] = timm_logits(model, images)

        drawn = draw_tleg(3, TLEG["width"])
        arrays["tleg/names"], arrays["tleg/state"] = names(drawn), vector(drawn)
        state = to_torch(drawn)
        blocks = tleg_blocks(state, TLEG["layers"])
        arrays["tleg/logits"] = aux_logits(state, blocks, images, TLEG["heads"])
        fields = {k: TLEG[k] for k in ("width", "heads", "des_heads")}
        for way in WAYS:
            models = [
                des_net(state, tleg_blocks(state, d), way, **fields) for d in DEPTHS
            ]
            arrays[f"tleg/des/{way}"] = np.stack(
                [timm_logits(m, images) for m in models]
            )

    arrays["versions"] = [
        f"{m.__name__} {m.__version__}" for m in (torch, import_timm())
    ]
    return {k: _array(v) for k, v in arrays.items()}


def _array(value) -> np.ndarray:
    if not isinstance(value, (list, tuple)):
        value = getattr(value, "detach", lambda: value)()
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def main() -> None:
    arrays = make()
    np.savez_compressed(PATH, **arrays)
    print(f"{PATH.name}: {PATH.stat().st_size / 1000:.0f} kB")
    for key, value in arrays.items():
        print(key, value.shape, value.dtype)


if __name__ == "__main__":
    main()
