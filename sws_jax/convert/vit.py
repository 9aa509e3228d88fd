"""Names of Vision Transformers and DeiTs in PyTorch: timm's and Hugging Face's.

timm's are DeiT's own and, with ``fc_norm``, those of the published descendants of SWS.
Hugging Face's files keep the names that its models had before transformers 5; the
models in memory have others since.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

from sws_jax.convert.base import CONV, SAME, VECTOR, Entry, Layout, linear
from sws_jax.specs import ViTSpec

Shapes = Mapping[str, tuple[int, ...]]
# Width of a head in every ViT and DeiT of the papers: shapes do not tell.
HEAD_SIZE = 64


@dataclasses.dataclass(frozen=True)
class Names:
    """What a layout calls the parts of a ViT; the tensors add weight and bias.

    Attributes:
      cls_token, dist_token, pos_embed: names of whole tensors.
      patch, norm, head, head_dist: modules; `norm` before pooling.
      fc_norm: the norm after pooling; empty where the layout has none.
      blocks: of block l, with ``{l}``; the modules below stand in it.
      qkv: one module, or three.
      eps: of the norms, which a file does not hold.
    """

    cls_token: str
    dist_token: str
    pos_embed: str
    patch: str
    norm: str
    fc_norm: str
    head: str
    head_dist: str
    blocks: str
    norm1: str
    qkv: tuple[str, ...]
    proj: str
    norm2: str
    fc1: str
    fc2: str
    eps: float

    def entries(self, spec: ViTSpec) -> list[Entry]:
        """Every tensor of a network."""
        found = [Entry(self.pos_embed, "pos_embed")]
        found += _weights(self.patch, "patch_embed/proj", "kernel", CONV)
        if spec.pool == "token":
            found.append(Entry(self.cls_token, "cls_token"))
        if spec.distilled:
            found.append(Entry(self.dist_token, "dist_token"))
        norm = self.fc_norm if spec.pool_order == "mean_norm" else self.norm
        found += _weights(norm, "norm", "scale", SAME)
        for layer in range(spec.depth):
            found += self._block(layer)
        heads = [(self.head, "head"), (self.head_dist, "head_dist")]
        for theirs, ours in heads[: 1 + spec.distilled] if spec.num_classes else ():
            found += _weights(theirs, ours, "kernel", linear())
        return found

    def _block(self, layer: int) -> list[Entry]:
        start, at = self.blocks.format(l=layer), (layer,)

        def weights(theirs, ours, leaf, codec, index=at):
            return _weights(start + theirs, f"blocks/{ours}", leaf, codec, index)

        found = weights(self.norm1, "norm1", "scale", SAME)
        if len(self.qkv) == 1:
            found += weights(self.qkv[0], "attn/qkv", "kernel", linear())
        else:
            for part, name in enumerate(self.qkv):
                # The kernel's axes are [width, q k v, heads, head], the bias' less one.
                here = "blocks/attn/qkv/kernel", "blocks/attn/qkv/bias"
                found += [
                    Entry(
                        f"{start}{name}.weight",
                        here[0],
                        linear(),
                        (layer, slice(None), part),
                    ),
                    Entry(f"{start}{name}.bias", here[1], VECTOR, (layer, part)),
                ]
        found += weights(self.proj, "attn/proj", "kernel", linear(inputs=2))
        found += weights(self.norm2, "norm2", "scale", SAME)
        found += weights(self.fc1, "mlp/fc1", "kernel", linear())
        return found + weights(self.fc2, "mlp/fc2", "kernel", linear())

    def recognise(self, shapes: Shapes) -> ViTSpec | None:
        """The network that tensors of these names and shapes are, or None."""
        patch = shapes.get(f"{self.patch}.weight")
        pos = shapes.get(self.pos_embed)
        fc1 = shapes.get(f"{self.blocks.format(l=0)}{self.fc1}.weight")
        if not (patch and pos and fc1) or len(patch) != 4 or len(pos) != 3:
            return None
        width, channels, size, _ = patch
        pattern = re.escape(self.blocks).replace(r"\{l\}", r"(\d+)") + ".*"
        layers = {int(m[1]) for name in shapes if (m := re.fullmatch(pattern, name))}
        token, distilled = self.cls_token in shapes, self.dist_token in shapes
        side = math.isqrt(pos[1] - token - distilled)
        head = shapes.get(f"{self.head}.weight")
        after = bool(self.fc_norm) and f"{self.fc_norm}.weight" in shapes
        return ViTSpec(
            depth=max(layers) + 1,
            width=width,
            heads=width // HEAD_SIZE if width % HEAD_SIZE == 0 else 1,
            mlp_ratio=fc1[0] / width,
            patch_size=size,
            image_size=(side * size, side * size),
            channels=channels,
            num_classes=head[0] if head else 0,
            pool="token" if token else "mean",
            pool_order="mean_norm" if after and not token else "norm_mean",
            distilled=distilled,
            norm_eps=self.eps,
        )


def _weights(theirs, ours, leaf, codec, index=()) -> list[Entry]:
    """Weight and bias of a module; the weight's leaf here is a kernel or a scale."""
    return [
        Entry(f"{theirs}.weight", f"{ours}/{leaf}", codec, index),
        Entry(f"{theirs}.bias", f"{ours}/bias", VECTOR, index),
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
    blocks="blocks.{l}.",
    norm1="norm1",
    qkv=("attn.qkv",),
    proj="attn.proj",
    norm2="norm2",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
    eps=1e-6,
)


def _hugging_face(model: str, in_memory: bool, distilled: bool) -> Names:
    """`model` is the prefix: vit or deit."""
    if in_memory:
        blocks = f"{model}.layers.{{l}}."
        qkv = tuple(f"attention.{part}_proj" for part in "qkv")
        proj, fc1, fc2 = "attention.o_proj", "mlp.fc1", "mlp.fc2"
    else:
        blocks = f"{model}.encoder.layer.{{l}}."
        qkv = tuple(f"attention.attention.{part}" for part in ("query", "key", "value"))
        proj, fc1, fc2 = "attention.output.dense", "intermediate.dense", "output.dense"
    embeddings = f"{model}.embeddings"
    return Names(
        cls_token=f"{embeddings}.cls_token",
        dist_token=f"{embeddings}.distillation_token",
        pos_embed=f"{embeddings}.position_embeddings",
        patch=f"{embeddings}.patch_embeddings.projection",
        norm=f"{model}.layernorm",
        fc_norm="",
        head="cls_classifier" if distilled else "classifier",
        head_dist="distillation_classifier",
        blocks=blocks,
        norm1="layernorm_before",
        qkv=qkv,
        proj=proj,
        norm2="layernorm_after",
        fc1=fc1,
        fc2=fc2,
        eps=1e-12,
    )


LAYOUTS = (
    Layout("timm ViT", TIMM.recognise, TIMM.entries),
    *(
        Layout(
            f"Hugging Face {model} {'in memory' if in_memory else 'file'}",
            names.recognise,
            names.entries,
            ignored=r".*pooler\.dense\.(weight|bias)",
        )
        for model, prefix, distilled in (("ViT", "vit", False), ("DeiT", "deit", True))
        for in_memory in (False, True)
        for names in [_hugging_face(prefix, in_memory, distilled)]
    ),
)
