"""Trains one ViT of any depth from scratch: what a descendant is compared with.

Paper: DeiT, 2012.12877, without distillation.

    python -m sws_jax.main --config=configs/scratch_deit.py:depth=12

trains 12 blocks on digits for 40 epochs: about half a minute on two CPU cores, 98 %
or above. With variant=S/16 (Ti/16, B/16) and dataset= it is DeiT's 300 epochs at
224 px, meant for accelerators and not run by its authors. Arguments:

    depth       number of blocks, 12
    epochs      0 keeps the recipe's: 40 for digits, 300 for the others
    variant     digits (default), Ti/16, S/16 or B/16
    dataset     digits, or the path of an .npz file
    image_size  pixels; 0 takes 224, or for digits the source's own
"""

from sws_jax import presets


def get_config(arg=None):
    arg = presets.parse(
        arg, depth=12, epochs=0.0, variant="digits", dataset="", image_size=0
    )
    small = arg.variant == "digits"
    name = f"scratch-{presets.slug(arg.variant)}-L{arg.depth}"
    config = presets.job("single", name=name)
    presets.recipe(config, arg.variant, arg.image_size)
    config.data.source = arg.dataset or config.data.source
    config.model.depth = arg.depth
    config.schedule.total_epochs = arg.epochs or (40.0 if small else 300.0)
    if small:
        config.schedule.rate = 2e-3
    return config
