"""LeViT's weights under the names of timm, Facebook and Hugging Face.

The three sets hold the same tensors, with queries, keys and values packed head by
head in all of them, and offsets of attention biases numbered alike:

- timm from 0.9 on: ``stages.1.downsample.attn_downsample.kv.linear.weight``. Its
  ``levit_conv_*`` have the same names, and 1 x 1 convolutions for dense layers.
- Facebook's original, and timm before 0.9: ``blocks.8.kv.c.weight``, one running
  number over attention, MLPs and what stands between stages. Such files also hold
  the integer tables ``attention_bias_idxs``, which follow from the image size.
- Hugging Face's: ``levit.encoder.stages.0.layers.8.keys_values.linear.weight``, where
  a stage ends with the step to the next. Files and networks in memory have the same
  names there (transformers 4 and 5); files of some versions hold the tables too.

What shapes cannot tell: images are square, and every activation is a hard swish, as
in all trained LeViTs. Weights with batch norm folded in are of none of these layouts.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from sws_jax.convert import ratios
from sws_jax.convert.base import BATCH_NORM, CONV, Codec, Entry, Layout, linear
from sws_jax.specs.levit import STEM_STRIDE, LeViTSpec, cut

Shapes = Mapping[str, tuple[int, ...]]

# A count of batches is a scalar of training; the tables of offsets are computed.
IGNORED = r".*\.(num_batches_tracked|attention_bias_idxs)"

# PyTorch's 1 x 1 convolution [out, in, 1, 1] as [in, out].
POINTWISE = Codec(lambda a, shape: a.T.reshape(shape), lambda a: a.T[:, :, None, None])


@dataclasses.dataclass(frozen=True)
class Names:
    """One set of names.

    Attributes:
      stem: of the four convolutions.
      parts: what is inside an attention or an MLP, by our name for it.
      convolution: of a part of the stem.
      product: the dense layer of any other part.
      norm: the batch norm of a part or a head.
      heads: of the classifier and of the one that was distilled.
      head_product: the dense layer of a head.
      depths: from the names of a file to the number of blocks in each stage; empty
        where nothing is named so.
      places: from depths to where attentions and MLPs are, by our name for them.
      pointwise: attentions and MLPs have 1 x 1 convolutions for dense layers.
    """

    stem: tuple[str, str, str, str]
    parts: Mapping[str, str]
    convolution: str
    product: str
    norm: str
    heads: tuple[str, str]
    head_product: str
    depths: Callable[[Iterable[str]], tuple[int, ...]]
    places: Callable[[tuple[int, ...]], dict[str, str]]
    pointwise: bool = False


def _timm_places(depths: tuple[int, ...]) -> dict[str, str]:
    places = {}
    for kind, stage, block in _order(depths):
        if kind == "downsample":
            there = f"stages.{stage + 1}.downsample"
            places[f"stage_{stage + 1}/downsample/attn"] = f"{there}.attn_downsample"
            places[f"stage_{stage + 1}/downsample/mlp"] = f"{there}.mlp"
        else:
            there = f"stages.{stage}.blocks.{block}"
            places[f"stage_{stage}/block_{block}/attn"] = f"{there}.attn"
            places[f"stage_{stage}/block_{block}/mlp"] = f"{there}.mlp"
    return places


def _numbered_places(
    depths: tuple[int, ...], *, prefix: str, residual: str, restart: bool
) -> dict[str, str]:
    """Attentions and MLPs under running numbers.

    Args:
      depths: blocks of each stage.
      prefix: what comes before a number; it may hold ``{stage}``.
      residual: what follows the number of all that is added to its input: of
        everything but the attention between stages.
      restart: numbers start again with each stage.
    """
    places: dict[str, str] = {}
    number, last = 0, 0
    for kind, stage, block in _order(depths):
        if restart and stage != last:
            number, last = 0, stage
        there = prefix.format(stage=stage)
        if kind == "downsample":
            ours, attn = f"stage_{stage + 1}/downsample", f"{there}.{number}"
        else:
            ours, attn = f"stage_{stage}/block_{block}", f"{there}.{number}.{residual}"
        places[f"{ours}/attn"] = attn
        places[f"{ours}/mlp"] = f"{there}.{number + 1}.{residual}"
        number += 2
    return places


def _staged_depths(names: Iterable[str], *, pattern: str) -> tuple[int, ...]:
    """Blocks of each stage, where the stage is the one group of the pattern."""
    matches = (re.fullmatch(pattern, name) for name in names)
    counts = collections.Counter(int(match[1]) for match in matches if match)
    return tuple(counts[stage] for stage in range(len(counts)))


def _facebook_depths(names: Iterable[str]) -> tuple[int, ...]:
    """Blocks of each stage, from where the attentions between stages are."""
    biases = re.compile(r"blocks\.(\d+)\.(m\.)?attention_biases")
    matches = list(filter(None, map(biases.fullmatch, names)))
    matches.sort(key=lambda match: int(match[1]))
    depths = [0] if matches else []
    for match in matches:
        if match[2]:
            depths[-1] += 1
        else:
            depths.append(0)
    return tuple(depths)


def _order(depths: tuple[int, ...]) -> Iterator[tuple[str, int, int]]:
    """(kind, stage, block) of all blocks, and of the steps that leave a stage."""
    for stage, depth in enumerate(depths):
        for block in range(depth):
            yield "block", stage, block
        if stage + 1 < len(depths):
            yield "downsample", stage, 0


TIMM = Names(
    stem=("stem.conv1", "stem.conv2", "stem.conv3", "stem.conv4"),
    parts={
        "qkv": "qkv",
        "kv": "kv",
        "q": "q.ln",
        "proj": "proj.ln",
        "fc1": "ln1",
        "fc2": "ln2",
    },
    convolution="linear",
    product="linear",
    norm="bn",
    heads=("head", "head_dist"),
    head_product="linear",
    depths=functools.partial(
        _staged_depths, pattern=r"stages\.(\d+)\.blocks\.\d+\.attn\.attention_biases"
    ),
    places=_timm_places,
)
FACEBOOK = Names(
    # Activations stand between and count.
    stem=("patch_embed.0", "patch_embed.2", "patch_embed.4", "patch_embed.6"),
    parts={
        "qkv": "qkv",
        "kv": "kv",
        "q": "q.1",
        "proj": "proj.1",
        "fc1": "0",
        "fc2": "2",
    },
    convolution="c",
    product="c",
    norm="bn",
    heads=("head", "head_dist"),
    head_product="l",
    depths=_facebook_depths,
    places=functools.partial(
        _numbered_places, prefix="blocks", residual="m", restart=False
    ),
)
HUGGING_FACE = Names(
    stem=(
        "levit.patch_embeddings.embedding_layer_1",
        "levit.patch_embeddings.embedding_layer_2",
        "levit.patch_embeddings.embedding_layer_3",
        "levit.patch_embeddings.embedding_layer_4",
    ),
    parts={
        "qkv": "queries_keys_values",
        "kv": "keys_values",
        "q": "queries",
        "proj": "projection",
        "fc1": "linear_up",
        "fc2": "linear_down",
    },
    convolution="convolution",
    product="linear",
    norm="batch_norm",
    heads=("classifier", "classifier_distill"),
    head_product="linear",
    depths=functools.partial(
        _staged_depths,
        pattern=r"levit\.encoder\.stages\.(\d+)\.layers\.\d+\.module\.attention_biases",
    ),
    places=functools.partial(
        _numbered_places,
        prefix="levit.encoder.stages.{stage}.layers",
        residual="module",
        restart=True,
    ),
)


def entries(spec: LeViTSpec, names: Names) -> list[Entry]:
    """Every tensor of a LeViT under one set of names."""
    rows: list[Entry] = []
    codec = POINTWISE if names.pointwise else linear()

    def norm(ours: str, theirs: str):
        for leaf, tensor in BATCH_NORM.items():
            rows.append(Entry(f"{theirs}.{tensor}", f"{ours}/{leaf}"))

    def normed(ours: str, theirs: str, product: str, codec: Codec):
        kernel = f"{ours}/linear/kernel"
        rows.append(Entry(f"{theirs}.{product}.weight", kernel, codec))
        norm(f"{ours}/bn", f"{theirs}.{names.norm}")

    for i, theirs in enumerate(names.stem):
        normed(f"stem/conv{i + 1}", theirs, names.convolution, CONV)
    for ours, theirs in names.places(spec.depths).items():
        if ours.endswith("/mlp"):
            parts = ["fc1", "fc2"]
        else:
            parts = ["q", "kv", "proj"] if "downsample" in ours else ["qkv", "proj"]
            biases = "attention_biases"
            rows.append(Entry(f"{theirs}.{biases}", f"{ours}/{biases}"))
        for part in parts:
            there = f"{theirs}.{names.parts[part]}"
            normed(f"{ours}/{part}", there, names.product, codec)
    for ours, theirs in zip(spec.classifiers, names.heads, strict=False):
        norm(f"{ours}/bn", f"{theirs}.{names.norm}")
        product = f"{theirs}.{names.head_product}"
        rows.append(Entry(f"{product}.weight", f"{ours}/linear/kernel", linear()))
        rows.append(Entry(f"{product}.bias", f"{ours}/linear/bias"))
    return rows


def recognise(shapes: Shapes, names: Names) -> LeViTSpec | None:
    """The spec of a file under one set of names, or None if it is not under it.

    Args:
      shapes: by name, of all tensors of a file.
      names: the set.

    Returns:
      What the first block of each stage, the steps between stages, the stem and the
      head tell. None too where the stages are not those of a square image.
    """
    depths = names.depths(shapes)
    if not depths:
        return None
    try:
        return _measure(shapes, names, depths)
    # A name is missing, a rank is another, or the sizes are no LeViT's.
    except (LookupError, ValueError, ZeroDivisionError):
        return None


def _measure(shapes: Shapes, names: Names, depths: tuple[int, ...]) -> LeViTSpec:
    """`recognise`, raising where something is missing or does not add up."""
    places = names.places(depths)

    def product(ours: str, part: str) -> tuple[int, int]:
        """(in, out) of a dense layer."""
        name = f"{places[ours]}.{names.parts[part]}.{names.product}.weight"
        outputs, inputs, *window = shapes[name]
        if window != ([1, 1] if names.pointwise else []):
            raise ValueError(f"{name} is another kind of layer")
        return inputs, outputs

    def attention(ours: str) -> tuple[int, int, float]:
        """Heads, size of a key, and size of a value over it."""
        heads, _ = shapes[f"{places[ours]}.attention_biases"]
        value = _divided(product(ours, "proj")[0], heads)
        if "downsample" in ours:
            key = _divided(product(ours, "q")[1], heads)
        else:
            key = _divided(product(ours, "qkv")[1] - heads * value, 2 * heads)
        return heads, key, value / key

    def mlp_ratio(places: list[str]) -> float:
        pairs = [product(f"{place}/mlp", "fc1") for place in places]
        width, hidden = pairs[0]
        # Where none does, that of the first is taken, and then shapes will differ.
        return ratios.common(pairs, cut, [hidden / width]) or hidden / width

    stages = [f"stage_{stage}/block_0" for stage in range(len(depths))]
    steps = [f"stage_{stage}/downsample" for stage in range(1, len(depths))]
    inside = [attention(f"{stage}/attn") for stage in stages]
    between = [attention(f"{step}/attn") for step in steps]
    _, offsets = shapes[f"{places['stage_0/block_0/attn']}.attention_biases"]
    side = math.isqrt(offsets)
    if side * side != offsets:
        raise ValueError("an image that is not square has two possible shapes")
    _, channels, *_ = shapes[f"{names.stem[0]}.{names.convolution}.weight"]
    head, other = (f"{name}.{names.head_product}.bias" for name in names.heads)
    num_classes = shapes[head][0] if head in shapes else 0
    return LeViTSpec(
        widths=tuple(product(f"{stage}/mlp", "fc1")[0] for stage in stages),
        depths=depths,
        heads=tuple(heads for heads, _, _ in inside),
        key_dims=tuple(key for _, key, _ in inside),
        attn_ratios=tuple(ratio for _, _, ratio in inside),
        mlp_ratio=mlp_ratio(stages),
        down_heads=tuple(heads for heads, _, _ in between),
        down_key_dims=tuple(key for _, key, _ in between),
        down_attn_ratios=tuple(ratio for _, _, ratio in between),
        # A network of one stage has none; any number does, and this one is usual.
        down_mlp_ratio=mlp_ratio(steps) if steps else 2.0,
        image_size=(side * STEM_STRIDE, side * STEM_STRIDE),
        channels=channels,
        num_classes=num_classes,
        distilled=other in shapes or not num_classes,
    )


def _divided(size: int, parts: int) -> int:
    quotient, rest = divmod(size, parts)
    if rest:
        raise ValueError(f"{size} does not divide into {parts}")
    return quotient


def _layout(name: str, names: Names) -> Layout:
    return Layout(
        name=name,
        recognise=functools.partial(recognise, names=names),
        entries=functools.partial(entries, names=names),
        ignored=IGNORED,
    )


LAYOUTS = (
    _layout("timm LeViT", TIMM),
    _layout("timm LeViT of convolutions", dataclasses.replace(TIMM, pointwise=True)),
    _layout("Facebook's LeViT", FACEBOOK),
    _layout("Hugging Face LeViT", HUGGING_FACE),
)
