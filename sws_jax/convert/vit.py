"""Names of Vision Transformers: PyTorch's, Flax's, and those of published learngenes.

timm's are DeiT's own and, with ``fc_norm``, those of the published descendants of SWS.
Hugging Face's files keep the names that its models had before transformers 5; the
models in memory have others since. Vision Transformer's and big_vision's ``.npz`` have
Flax names, q, k and v apart. The published Aux-Nets of SWS and TLEG hold one block for
every gene.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

import numpy as np

from sws_jax.convert import ratios
from sws_jax.convert.base import (
    CONV,
    IMAGENET,
    SAME,
    VECTOR,
    Codec,
    Entry,
    Flat,
    Layout,
    View,
    linear,
)
from sws_jax.errors import UserError
from sws_jax.methods import sws, tleg
from sws_jax.models.profiles import OFFICIAL_AUX_HEADS
from sws_jax.specs import ViTSpec

Shapes = Mapping[str, tuple[int, ...]]
# Width of a head in the ViTs of the papers, up to L, which shapes do not always show.
HEAD_SIZE = 64
# Heads of wider ones: So400m, H, g, g-opt and G (Scaling Vision Transformers,
# 2106.04560; SoViT, 2305.13035).
WIDE_HEADS = dict.fromkeys((1152, 1280, 1408, 1536, 1664), 16)
# Widths of the ViTs of papers and of timm, for which a guess at heads is what is usual.
PUBLISHED_WIDTHS = {192, 256, 320, 384, 512, 640, 768, 896, 1024, *WIDE_HEADS}
TLEG_DEPTH = 12  # of the released Aux-Nets


@dataclasses.dataclass(frozen=True)
class Style:
    """How a library lays out the tensors of a module.

    Attributes:
      kernel, scale, bias: names of the leaves, with what is before them.
      conv, vector: of a patch embedding, and of a bias of heads.
      linear: of a dense layer, by the number of our axes that go in.
    """

    kernel: str
    scale: str
    bias: str
    conv: Codec
    vector: Codec
    linear: Mapping[int, Codec]


TORCH = Style(".weight", ".weight", ".bias", CONV, VECTOR, {1: linear(), 2: linear(2)})
FLAX = Style("/kernel", "/scale", "/bias", SAME, SAME, {1: SAME, 2: SAME})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Names:
    """What a layout calls the parts of a ViT; the tensors add kernel and bias.

    Attributes:
      cls_token, dist_token, pos_embed: names of whole tensors.
      patch, norm, head, head_dist: modules; `norm` before pooling.
      fc_norm: the norm after pooling; empty where it has no name of its own.
      lone_token, lone_head: the distillation token and the head of networks that have
        no second one; empty where a layout has none of those.
      block: of module {m} of block {l}.
      stacked: whether one tensor holds all blocks, and {l} is in no name.
      qkv: one module, or three.
      eps: of the norms, which a file does not hold.
      gelu: likewise.
      style: of all modules.
      heads: of networks of some widths, where they are not `HEAD_SIZE` wide and
        shapes do not tell.
      halves: of a gene that is a pair, our names and the styles of its two.
    """

    cls_token: str
    dist_token: str = ""
    pos_embed: str
    patch: str
    norm: str
    fc_norm: str = ""
    head: str
    head_dist: str = ""
    lone_token: str = ""
    lone_head: str = ""
    block: str
    norm1: str
    qkv: tuple[str, ...]
    proj: str
    norm2: str
    fc1: str
    fc2: str
    eps: float
    gelu: str = "exact"
    stacked: bool = False
    style: Style = TORCH
    heads: Mapping[int, int] = dataclasses.field(default_factory=dict)
    halves: tuple[tuple[str, Style], ...] = ()

    def entries(self, spec: ViTSpec) -> list[Entry]:
        """Every tensor of a network; of a learngene, whose depth is its genes."""
        style = self.style
        rows = [Entry(self.pos_embed, "pos_embed")]
        rows += _weights(self.patch, "patch_embed/proj", style, style.conv)
        if spec.pool == "token":
            rows.append(Entry(self.cls_token, "cls_token"))
        lone = not spec.dist_head
        if spec.distilled:
            token = self.lone_token if lone else self.dist_token
            rows.append(Entry(token, "dist_token"))
        after = spec.pool_order == "mean_norm" and self.fc_norm
        norm = self.fc_norm if after else self.norm
        rows += _weights(norm, "norm", style)
        for half, own in self.halves or (("", style),):
            for layer in (slice(None),) if self.stacked else range(spec.depth):
                rows += self._block(layer, f"blocks/{half}", own)
        first = self.lone_head if lone else self.head
        for ours in spec.classifiers:
            theirs = {"head": first, "head_dist": self.head_dist}[ours]
            rows += _weights(theirs, ours, style, style.linear[1])
        return rows

    def _block(self, layer: int | slice, here: str, style: Style) -> Iterator[Entry]:
        def weights(module, ours, codec=None):
            theirs = self.block.format(l=layer, m=module)
            return _weights(theirs, here + ours, style, codec, (layer,))

        yield from weights(self.norm1, "norm1")
        dense, out = style.linear[1], style.linear[2]
        if len(self.qkv) == 1:
            yield from weights(self.qkv[0], "attn/qkv", dense)
        else:
            for part, name in enumerate(self.qkv):
                # The kernel's axes are [width, q k v, heads, head], the bias' less one.
                theirs = self.block.format(l=layer, m=name)
                kernel, bias = here + "attn/qkv/kernel", here + "attn/qkv/bias"
                place = (layer, slice(None), part)
                yield Entry(theirs + style.kernel, kernel, dense, place)
                yield Entry(theirs + style.bias, bias, style.vector, (layer, part))
        yield from weights(self.proj, "attn/proj", out)
        yield from weights(self.norm2, "norm2")
        yield from weights(self.fc1, "mlp/fc1", dense)
        yield from weights(self.fc2, "mlp/fc2", dense)

    def recognise(self, shapes: Shapes) -> ViTSpec | None:
        """The network that tensors of these names and shapes are, or None.

        Of a learngene it is the net of its blocks alone: one for each gene.
        """
        style = self.halves[0][1] if self.halves else self.style
        fc1 = self.block.format(l=0, m=self.fc1) + style.kernel
        patch = shapes.get(self.patch + self.style.kernel)
        pos = shapes.get(self.pos_embed)
        if not (patch and pos and fc1 in shapes) or len(patch) != 4 or len(pos) != 3:
            return None
        if self.style is TORCH:
            patch = patch[2:] + patch[1::-1]  # as Flax: height, width, in, out
        size, _, channels, width = patch
        out = 0 if self.style is TORCH else -1  # the axis of a kernel that comes out
        hidden = shapes[fc1][out]
        token = self.cls_token in shapes
        lone = token and self._has_lone_token(shapes)
        distilled = lone or self.dist_token in shapes
        side = math.isqrt(pos[1] - token - distilled)
        head = shapes.get((self.lone_head if lone else self.head) + self.style.kernel)
        after = bool(self.fc_norm) and self.fc_norm + self.style.scale in shapes
        return ViTSpec(
            depth=shapes[fc1][0] if self.stacked else self._depth(shapes),
            width=width,
            heads=self._heads(shapes, width, style),
            mlp_ratio=ratios.common([(width, hidden)]) or hidden / width,
            patch_size=size,
            image_size=(side * size, side * size),
            channels=channels,
            num_classes=head[out] if head else 0,
            pool="token" if token else "mean",
            pool_order="mean_norm" if after and not token else "norm_mean",
            distilled=distilled,
            dist_head=not lone,
            norm_eps=self.eps,
            gelu=self.gelu,
        )

    def _heads(self, shapes: Shapes, width: int, style: Style) -> int:
        """Heads of the attention, as shapes show them or as is usual."""
        kernel = shapes.get(self.block.format(l=0, m=self.qkv[-1]) + style.kernel, ())
        # Of a kernel of heads, Flax keeps them apart.
        if self.style is FLAX and len(kernel) >= 3:
            heads = kernel[-2]
        else:
            usual = {**WIDE_HEADS, **self.heads}
            heads = usual.get(width) or max(width // HEAD_SIZE, 1)
        return 1 if width % heads else heads

    def _depth(self, shapes: Shapes) -> int:
        """Blocks, by the largest number in a name."""
        pattern = re.escape(self.block).replace(r"\{m\}", ".+")
        pattern = pattern.replace(r"\{l\}", r"(\d+)") + ".+"
        layers = [match for name in shapes if (match := re.fullmatch(pattern, name))]
        return max(int(n) for match in layers for n in match.groups() or (0,)) + 1

    def _has_lone_token(self, shapes: Shapes) -> bool:
        """Whether there is a distillation token and no head of its own."""
        # Where the token has the same name either way, its head alone can tell.
        named = self.lone_token != self.dist_token
        return (
            self.lone_token in shapes
            and (named or self.lone_head + self.style.kernel in shapes)
            and self.head_dist + self.style.kernel not in shapes
        )


def _weights(theirs, ours, style: Style, codec=None, index=()) -> list[Entry]:
    """Kernel and bias of a module; of a norm, where no codec is given."""
    if codec is None:
        leaf, weight, codec = "scale", style.scale, SAME
    else:
        leaf, weight = "kernel", style.kernel
    return [
        Entry(theirs + weight, f"{ours}/{leaf}", codec, index),
        Entry(theirs + style.bias, f"{ours}/bias", style.vector, index),
    ]


TIMM = Names(
    cls_token="cls_token",
    dist_token="dist_token",
    pos_embed="pos_embed",
    patch="patch_embed.proj",
    norm="norm",
    fc_norm="fc_norm",
    head="head",
    head_dist="head_dist",
    # What nothing reads is to timm a register (2309.16588).
    lone_token="reg_token",
    lone_head="head",
    block="blocks.{l}.{m}",
    norm1="norm1",
    qkv=("attn.qkv",),
    proj="attn.proj",
    norm2="norm2",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
    eps=1e-6,
)

# The Aux-Net of SWS, whose stages have one instance of every module each; and TLEG's.
SWS = dataclasses.replace(
    TIMM,
    fc_norm="",
    block="blocks.block.{m}.instances.{l}",
    eps=1e-5,
    heads=OFFICIAL_AUX_HEADS,
)
TLEG = dataclasses.replace(
    SWS,
    block="blocks.block.{m}.instances.0",
    heads={},
    halves=tuple(
        (
            f"{half}/",
            dataclasses.replace(
                TORCH,
                kernel=f".weight_{name}",
                scale=f".weight_{name}",
                bias=f".bias_{name}",
            ),
        )
        for half, name in (("base", "base"), ("slope", "ilayer"))
    ),
)

# This project's own tree, as it is and with its blocks apart.
STACKED = Names(
    cls_token="cls_token",
    dist_token="dist_token",
    pos_embed="pos_embed",
    patch="patch_embed/proj",
    norm="norm",
    head="head",
    head_dist="head_dist",
    lone_token="dist_token",
    lone_head="head",
    block="blocks/{m}",
    stacked=True,
    norm1="norm1",
    qkv=("attn/qkv",),
    proj="attn/proj",
    norm2="norm2",
    fc1="mlp/fc1",
    fc2="mlp/fc2",
    eps=1e-6,
    style=FLAX,
)
UNSTACKED = dataclasses.replace(STACKED, block="blocks_{l}/{m}", stacked=False)


def _google(attention: str, mlp: str, norm2: str, pos_embed: str) -> Names:
    parts = ("query", "key", "value")
    return Names(
        cls_token="cls",
        pos_embed=pos_embed,
        patch="embedding",
        norm="Transformer/encoder_norm",
        head="head",
        block="Transformer/encoderblock_{l}/{m}",
        norm1="LayerNorm_0",
        qkv=tuple(f"{attention}/{part}" for part in parts),
        proj=f"{attention}/out",
        norm2=norm2,
        fc1=f"{mlp}/Dense_0",
        fc2=f"{mlp}/Dense_1",
        eps=1e-6,
        gelu="tanh",
        style=FLAX,
    )


VISION_TRANSFORMER = _google(
    attention="MultiHeadDotProductAttention_1",
    mlp="MlpBlock_3",
    norm2="LayerNorm_2",
    pos_embed="Transformer/posembed_input/pos_embedding",
)
BIG_VISION = _google(
    attention="MultiHeadDotProductAttention_0",
    mlp="MlpBlock_0",
    norm2="LayerNorm_1",
    pos_embed="pos_embedding",
)
BIG_VISION_SCANNED = dataclasses.replace(
    BIG_VISION, block="Transformer/encoderblock/{m}", stacked=True
)


def _timm(flat: Flat, image_size: tuple[int, int] | None) -> Flat:
    """Positions of patches alone (timm's ``no_embed_class``, FlexiViT's), and zeros for
    the tokens before them.
    """
    positions = flat.get(TIMM.pos_embed)
    patch = flat.get(f"{TIMM.patch}.weight")
    plain = TIMM.cls_token in flat and TIMM.dist_token not in flat
    if not plain or positions is None or patch is None:
        return flat
    if positions.ndim != 3 or patch.ndim != 4 or 0 in patch.shape:
        return flat
    rows, others = positions.shape[1], 1
    if (token := flat.get(TIMM.lone_token)) is not None and token.ndim == 3:
        others += token.shape[1]
    alone = not _square(rows - others) and _square(rows)
    if image_size:
        sides = zip(image_size, patch.shape[2:], strict=True)
        patches = math.prod(side // size for side, size in sides)
        alone = (alone or rows == patches) and rows != patches + others
    if not alone:
        return flat
    zeros = np.zeros((*positions.shape[:1], others, *positions.shape[2:]))
    whole = np.concatenate([zeros.astype(positions.dtype), positions], 1)
    return {**flat, TIMM.pos_embed: whole}


def _square(count: int) -> bool:
    return count > 0 and math.isqrt(count) ** 2 == count


def _big_vision(flat: Flat, image_size: tuple[int, int] | None) -> Flat:
    """What big_vision adds to its tokens, as what is added here.

    There a class token has no position of its own; and a net whose positions are sines
    and cosines has none in its file.
    """
    flat, name = dict(flat), BIG_VISION.pos_embed
    if "Transformer/encoder_norm/scale" not in flat:
        return flat
    if name not in flat and "embedding/kernel" in flat:
        height, width, _, features = flat["embedding/kernel"].shape
        size = image_size or (224, 224)
        flat[name] = sincos2d(size[0] // height, size[1] // width, features)
    if name in flat and "cls" in flat:
        positions = flat[name]
        flat[name] = np.concatenate([np.zeros_like(positions[:, :1]), positions], 1)
    return flat


def sincos2d(rows: int, columns: int, width: int) -> np.ndarray:
    """Fixed position embeddings, float32 [1, rows x columns, width].

    A quarter of the features each are sine and cosine of the column, then of the row,
    times frequencies that fall from 1 to 1/10,000.

    Reference:
      MoCo v3, 2104.02057, section 5; Better plain ViT baselines, 2205.01580.
    """
    if width % 4 or width < 8:
        raise UserError(f"positions of sines need a width of 4 n, and not {width}")
    y, x = np.mgrid[:rows, :columns].reshape(2, -1, 1).astype(np.float64)
    frequencies = 10_000.0 ** -np.linspace(0, 1, width // 4)
    angles = [f(p * frequencies) for p in (x, y) for f in (np.sin, np.cos)]
    return np.concatenate(angles, axis=1)[None].astype(np.float32)


def _hugging_face(model: str, in_memory: bool, distilled: bool) -> Names:
    """Names of transformers; `model` is what they begin with: vit or deit."""
    if in_memory:
        block = f"{model}.layers.{{l}}.{{m}}"
        qkv = tuple(f"attention.{part}_proj" for part in "qkv")
        proj, fc1, fc2 = "attention.o_proj", "mlp.fc1", "mlp.fc2"
    else:
        block = f"{model}.encoder.layer.{{l}}.{{m}}"
        qkv = tuple(f"attention.attention.{part}" for part in ("query", "key", "value"))
        proj, fc1, fc2 = "attention.output.dense", "intermediate.dense", "output.dense"
    embeddings = f"{model}.embeddings"
    dist_token = f"{embeddings}.distillation_token"
    return Names(
        cls_token=f"{embeddings}.cls_token",
        dist_token=dist_token,
        pos_embed=f"{embeddings}.position_embeddings",
        patch=f"{embeddings}.patch_embeddings.projection",
        norm=f"{model}.layernorm",
        head="cls_classifier" if distilled else "classifier",
        head_dist="distillation_classifier",
        # DeiTForImageClassification has one; its sibling WithTeacher has both.
        lone_token=dist_token if distilled else "",
        lone_head="classifier" if distilled else "",
        block=block,
        norm1="layernorm_before",
        qkv=qkv,
        proj=proj,
        norm2="layernorm_after",
        fc1=fc1,
        fc2=fc2,
        eps=1e-12,
    )


HF_VIT = _hugging_face("vit", in_memory=False, distilled=False)
HF_DEIT = _hugging_face("deit", in_memory=False, distilled=True)
_HF_IGNORED = r".*pooler\.dense\.(weight|bias)"
# Pixels of Google's networks, and of Hugging Face's copies of them, are from -1 to 1.
_GOOGLE = View(mean=(0.5,) * 3, std=(0.5,) * 3, crop=1.0)


def _layout(name: str, names: Names, **fields) -> Layout:
    # Flax's kernels have an axis of heads.
    fields["heads_guessed"] = names.style is not FLAX
    return Layout(name, names.recognise, names.entries, **fields)


def _hf_layout(name: str, names: Names, view: View) -> Layout:
    return _layout(name, names, ignored=_HF_IGNORED, view=view, antialias=False)


LAYOUTS = (
    _layout("timm ViT", TIMM, normalise=_timm),
    _layout("SWS Aux-Net", SWS, method=sws.NAME, antialias=False),
    _layout("TLEG Aux-Net", TLEG, method=tleg.NAME, antialias=False),
    _hf_layout(
        "Hugging Face ViT in memory",
        _hugging_face("vit", in_memory=True, distilled=False),
        _GOOGLE,
    ),
    _hf_layout("Hugging Face ViT file", HF_VIT, _GOOGLE),
    _hf_layout(
        "Hugging Face DeiT in memory",
        _hugging_face("deit", in_memory=True, distilled=True),
        IMAGENET,
    ),
    _hf_layout("Hugging Face DeiT file", HF_DEIT, IMAGENET),
    _layout("Vision Transformer", VISION_TRANSFORMER, view=_GOOGLE),
    _layout("big_vision", BIG_VISION, view=_GOOGLE, normalise=_big_vision),
    _layout(
        "big_vision scanned", BIG_VISION_SCANNED, view=_GOOGLE, normalise=_big_vision
    ),
    _layout("Flax tree", UNSTACKED),
    _layout("Flax tree stacked", STACKED),
)
