"""Networks that are not here, as far as the names of their tensors tell surely."""

from __future__ import annotations

import re
from collections.abc import Iterable

# What they are called, and a pattern of the list of their names, one a line; the first
# that matches counts.
_RELATIVES = {
    "an adapter's, LoRA's or another's (merge it into its network, and save that)": (
        r"[._]lora_[A-Za-z]|\.adapter(_|s?\.)|\.base_layer\."
    ),
    "CLIP's": r"class_embedding$|pre_layrnorm|(^|\.)ln_pre\.|resblocks"
    r"|(^|\.)text_(model|projection)",
    "SigLIP's": r"(^|\.)embeddings\.patch_embedding\.bias$",
    "CLIP's or SigLIP's": r"(^|\.)(visual|vision_model)\.",
    "DINOv3's of transformers": r"(?<!encoder\.)(?<![a-z])layer\.\d+\.attention\."
    r"[kqv]_proj\.weight$",
    "DINOv2's of transformers": r"layer_scale\d\.lambda1",
    "ViT-MSN's of transformers": r"^encoder\.layer\.0\.[\s\S]*^vit\.embeddings\.",
    "ViTDet's": r"(^|\.)embeddings\.projection\.weight$",
    "data2vec's": r"(^|\.)data2vec_vision\.",
    "BEiT's": r"(^|\.)beit\.|^blocks\.\d+\.attn\.relative_position",
    "Swin's": r"relative_position_bias_table",
    "a ViT's of relative positions": r"(^|\.)(shared_)?rel_pos(\.|_)",
    "a ViT's of parallel blocks": r"^blocks\.\d+\.(attns\.\d|attn_out_proj|in_norm)",
    "a ViT's of a gated MLP (SwiGLU)": r"^blocks\.\d+\.mlp\.(fc1_[gx]|w\d+)\.",
    "timm's of BEiT, EVA or DINOv3": r"^blocks\.\d+\.(gamma_1|attn\.q_bias)$",
    "a ViT's without positions": r"\A(?![\s\S]*^pos_embed$)"
    r"(?=[\s\S]*^patch_embed\.proj\.weight$)[\s\S]*^blocks\.0\.attn\.qkv\.weight$",
    "MAE's of transformers": r"vit\.embeddings\.mask_token|^decoder\.decoder_",
    "a ResNet's of transformers": r"^resnet\.",
    "a ResNet's": r"(^|\.)layer\d\.\d+\.conv\d",
    "ConvNeXt's": r"\.dwconv\.|\.conv_dw\.",
    "a RegNet's whose norms stand before its convolutions (RegNetV)": (
        r"^s1\.b1\.norm1\.|^s1\.b1\.conv1\.weight$"
    ),
    "a RegNet's that is no RegNetY": r"\A(?![\s\S]*^s\d\.b\d+\.se\.)"
    r"[\s\S]*^s1\.b1\.conv1\.|^(regnet\.)encoder\.stages\.0\.layers\.0\.layer\.",
    "a RegNetY's of which a part is missing": r"^s\d\.b\d+\.se\.fc1\.",
    "a RegNet's that is no RegNetY, or a ResNet's": (
        r"^encoder\.stages\.0\.layers\.0\.layer\."
    ),
    "torchvision's of a RegNet": r"trunk_output\.block1\.",
    "a LeViT's whose norms were folded in": r"(^|\.)attn\.qkv\.weight$[\s\S]*"
    r"^stem\.conv1\.",
}
# What stands before the names of models of transformers that are not here.
MODELS = (
    *("audio_spectrogram_transformer", "beit", "bit", "convnextv2", "cvt"),
    *("data2vec_vision", "dinov2", "dinov2_with_registers", "focalnet", "hiera"),
    *("ijepa", "mobilevit", "poolformer", "pvt", "segformer", "swinv2", "timesformer"),
    *("videomae", "vivit"),
)


def whose(names: Iterable[str]) -> str:
    """Whose a file's names are, as "BEiT's"; nothing where they do not tell."""
    text = "\n".join(sorted(names))
    for kind, pattern in _RELATIVES.items():
        if re.search(pattern, text, re.M):
            return kind
    firsts = {name.partition(".")[0] for name in text.split("\n")}
    models = sorted(firsts.intersection(MODELS))
    return f"those of {models[0]}, a model of transformers" if models else ""
