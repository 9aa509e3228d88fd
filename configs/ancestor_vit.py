"""Trains an ancestor (Ans-Net): the teacher of an Aux-Net, where none is at hand.

Paper: Ans-Net as in SWS, 2404.16897; the ViT and its recipe are DeiT's, 2012.12877.

    python -m sws_jax.main --config=configs/ancestor_vit.py

trains 6 blocks on digits for 30 epochs: some 15 seconds on two CPU cores, 98 % or
above. Its directory is a `teacher=` for configs/aux_deit.py. With variant=B/16 and
dataset= it trains a ViT-B at 224 px; meant for accelerators and not run by its
authors. Arguments:

    variant     digits (default), 32px, Ti/16, S/16 or B/16
    dataset     digits, a folder, tfds:NAME or an .npz file; needed but for digits
    image_size  pixels; 0 takes 224 (32px: 32), or for digits the source's own
    profile     consistent (default), or official: as the released code
    depth       number of blocks; 0 takes 6 (digits, 32px) or 12
    epochs      0 keeps the recipe's: 30 (digits, 32px) or 300
"""

from sws_jax.jobs import recipes


def get_config(arg=None):
    arg = recipes.parse_recipe(arg, depth=0, epochs=0.0)
    config = recipes.job("single", name=f"ancestor-{recipes.slug(arg.variant)}")
    budget = recipes.recipe(config, arg)
    config.model.update(dict(budget.ancestor))
    config.model.depth = arg.depth or config.model.depth
    recipes.last(config, arg.epochs or budget.ancestor_epochs)
    config.schedule.rate = budget.ancestor_rate
    return config
