"""Trains an ancestor (Ans-Net): the teacher of an Aux-Net, where none is at hand.

Paper: Ans-Net as in SWS, 2404.16897; the ViT and its recipe are DeiT's, 2012.12877.

    python -m sws_jax.main --config=configs/ancestor_vit.py

trains 6 blocks on digits for 30 epochs: some 15 seconds on two CPU cores, 98 % or
above. Its directory is a `teacher=` for configs/aux_deit.py. With variant=B/16 and
dataset= it trains a ViT-B at 224 px; meant for accelerators and not run by its
authors. Arguments:

    depth       number of blocks; 0 takes 6 for digits, 12 for the others
    epochs      0 keeps the recipe's: 30 for digits, 300 for the others
    variant     digits (default), Ti/16, S/16 or B/16
    dataset     digits, or the path of an .npz file
    image_size  pixels; 0 takes 224, or for digits the source's own
"""

from sws_jax import presets


def get_config(arg=None):
    arg = presets.parse(
        arg, depth=0, epochs=0.0, variant="digits", dataset="", image_size=0
    )
    small = arg.variant == "digits"
    config = presets.job("single", name=f"ancestor-{presets.slug(arg.variant)}")
    presets.recipe(config, arg.variant, arg.image_size)
    config.data.source = arg.dataset or config.data.source
    config.model.depth = arg.depth or (6 if small else 12)
    config.schedule.total_epochs = arg.epochs or (30.0 if small else 300.0)
    if small:
        config.model.drop_path = 0.0
        config.schedule.rate = 2e-3
    return config
