"""Public checkpoints of transformers: their configs and processors as documented.

Values are those of the checkpoints' files; depths are cut, as weights are drawn here.
"""

_HALVES = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)
_IMAGENET = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
_BOTH = dict(do_resize=True, do_normalize=True)


def _vit(width=768, heads=12, side=224, patch=16, **more):
    fields = dict(hidden_size=width, num_attention_heads=heads, num_hidden_layers=2)
    fields |= dict(intermediate_size=4 * width, image_size=side, patch_size=patch)
    return fields | more


def _google(side=224):
    """As version 4.26 and later wrote them."""
    whole = dict(size=dict(height=side, width=side), resample=2, do_rescale=True)
    whole |= dict(rescale_factor=1 / 255, image_processor_type="ViTImageProcessor")
    return {**_BOTH, **_HALVES, **whole}


def _old(kind, side, resample, pixels, **more):
    """As earlier versions did."""
    fields = dict(feature_extractor_type=f"{kind}FeatureExtractor", size=side)
    return {**_BOTH, **pixels, **fields, "resample": resample, **more}


def _deit(side=256, crop=224):
    crops = dict(do_center_crop=True, crop_size=crop)
    return _old("DeiT", side, 3, _IMAGENET, **crops)


def _levit(widths, depths, heads, key):
    steps = [["Subsample", key, width // key, 4, 2, 2] for width in widths[:2]]
    return dict(
        hidden_sizes=widths,
        depths=[1, 1, 1] if key == 32 else depths,
        num_attention_heads=heads,
        key_dim=[key] * 3,
        down_ops=steps,
    )


def _regnet(widths, group, kind="y"):
    layer = dict(layer_type=kind, groups_width=group)
    return dict(hidden_sizes=widths, depths=[1, 2, 1, 1], **layer)


_LEVIT = _old("Levit", 224, 3, _IMAGENET, do_center_crop=True)
_REGNET = _old("ConvNext", 224, 3, _IMAGENET, crop_pct=0.875)
_PLAIN = "ViTForImageClassification"
_TWO = "DeiTForImageClassificationWithTeacher"
_LEVITS = "LevitForImageClassificationWithTeacher"
_REGNETS = "RegNetForImageClassification"
_AGES = ["0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "over 70"]

# Its class, its config, what is beside it, and the names of its classes or their
# number; 0 has no head.
CHECKPOINTS = {
    "google/vit-base-patch16-224": (_PLAIN, _vit(), _google(), 1000),
    "google/vit-base-patch16-384": (_PLAIN, _vit(side=384), _google(384), 1000),
    "google/vit-base-patch32-384": (
        _PLAIN,
        _vit(side=384, patch=32),
        _google(384),
        1000,
    ),
    "google/vit-base-patch16-224-in21k": ("ViTModel", _vit(), _google(), 0),
    "google/vit-large-patch16-224": (_PLAIN, _vit(1024, 16), _google(), 1000),
    "google/vit-huge-patch14-224-in21k": (
        "ViTModel",
        _vit(1280, 16, patch=14),
        _google(),
        0,
    ),
    "facebook/deit-tiny-distilled-patch16-224": (_TWO, _vit(192, 3), _deit(), 1000),
    "facebook/deit-base-distilled-patch16-224": (_TWO, _vit(), _deit(), 1000),
    "facebook/deit-base-distilled-patch16-384": (
        _TWO,
        _vit(side=384),
        _deit(438, 384),
        1000,
    ),
    "facebook/deit-small-patch16-224": (_PLAIN, _vit(384, 6), _deit(), 1000),
    "facebook/levit-128S": (
        _LEVITS,
        _levit([128, 256, 384], [2, 3, 4], [4, 6, 8], 16),
        _LEVIT,
        1000,
    ),
    "facebook/levit-192": (
        _LEVITS,
        _levit([192, 288, 384], [4, 4, 4], [3, 5, 6], 32),
        _LEVIT,
        1000,
    ),
    "facebook/levit-384": (
        _LEVITS,
        _levit([384, 512, 768], [4, 4, 4], [6, 9, 12], 32),
        _LEVIT,
        1000,
    ),
    "facebook/regnet-y-040": (
        _REGNETS,
        _regnet([128, 192, 512, 1088], 64),
        _REGNET,
        1000,
    ),
    "facebook/regnet-y-008": (
        _REGNETS,
        _regnet([64, 128, 320, 768], 16),
        _REGNET,
        1000,
    ),
    "facebook/regnet-x-040": (
        _REGNETS,
        _regnet([80, 240, 560, 1360], 40, "x"),
        _REGNET,
        1000,
    ),
    "facebook/dino-vits16": (
        "ViTModel",
        _vit(384, 6),
        _old("ViT", 224, 3, _IMAGENET),
        0,
    ),
    "facebook/dino-vitb8": (
        "ViTModel",
        _vit(patch=8),
        _old("ViT", 224, 3, _IMAGENET),
        0,
    ),
    "WinKawaks/vit-tiny-patch16-224": (
        _PLAIN,
        _vit(192, 3),
        _old("ViT", 224, 2, _HALVES),
        1000,
    ),
    "nateraw/vit-age-classifier": (_PLAIN, _vit(), _old("ViT", 224, 2, _HALVES), _AGES),
    "Falconsai/nsfw_image_detection": (_PLAIN, _vit(), _google(), ["normal", "nsfw"]),
    "facebook/vit-mae-base": (
        "ViTMAEForPreTraining",
        _vit(decoder_num_hidden_layers=1),
        _old("ViT", 224, 3, _IMAGENET),
        0,
    ),
    "facebook/vit-msn-small": (
        "ViTMSNModel",
        _vit(384, 6, layer_norm_eps=1e-6),
        _old("ViT", 224, 3, _IMAGENET),
        0,
    ),
    "facebook/dinov2-small": (
        "Dinov2Model",
        dict(hidden_size=384, num_attention_heads=6, num_hidden_layers=2),
        {**_BOTH, **_IMAGENET, "image_processor_type": "BitImageProcessor",
         "size": dict(shortest_edge=256), "do_center_crop": True, "resample": 3,
         "crop_size": dict(height=224, width=224), "do_convert_rgb": True,
         "do_rescale": True, "rescale_factor": 1 / 255},
        0,
    ),
    "microsoft/beit-base-patch16-224": (
        "BeitForImageClassification",
        dict(hidden_size=192, num_attention_heads=3, num_hidden_layers=2,
             intermediate_size=384),
        _old("Beit", 224, 2, _HALVES, do_center_crop=False, crop_size=224),
        1000,
    ),
}  # fmt: skip
# Of them, what is refused, and by which words.
REFUSED = {
    "facebook/regnet-x-040": "no network that is known here",
    "facebook/vit-mae-base": "model_type is 'vit_mae'",
    "facebook/vit-msn-small": "model_type is 'vit_msn'",
    "facebook/dinov2-small": "DINOv2|model_type is 'dinov2'",
    "microsoft/beit-base-patch16-224": "BEiT|model_type is 'beit'",
}
# One of each kind that is quickly built.
SMALL = (
    "WinKawaks/vit-tiny-patch16-224",
    "facebook/deit-tiny-distilled-patch16-224",
    "facebook/deit-small-patch16-224",
    "facebook/dino-vits16",
    "facebook/levit-128S",
    "facebook/regnet-y-008",
)
