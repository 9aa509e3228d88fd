"""Trains one ViT of any depth from scratch: what a descendant is compared with.

Paper: DeiT, 2012.12877, without distillation.

    python -m sws_jax.main --config=configs/scratch_deit.py:depth=12

trains 12 blocks on digits for 40 epochs: about half a minute on two CPU cores, 98 %
or above. With variant=S/16 (Ti/16, B/16) and dataset= it is DeiT's 300 epochs at
224 px, meant for accelerators and not run by its authors. Arguments:

    variant     digits (default), 32px, Ti/16, S/16 or B/16
    dataset     digits, a folder, tfds:NAME or an .npz file; needed but for digits
    image_size  pixels; 0 takes 224 (32px: 32), or for digits the source's own
    profile     consistent (default), or official: as the released code
    depth       number of blocks, 12
    epochs      0 keeps the recipe's: 40 for digits, 15 for 32px, or 300
"""

from sws_jax.jobs import recipes


def get_config(arg=None):
    arg = recipes.parse_recipe(arg, depth=12, epochs=0.0)
    name = f"scratch-{recipes.slug(arg.variant)}-L{arg.depth}"
    config = recipes.job("single", name=name)
    budget = recipes.recipe(config, arg)
    config.model.depth = arg.depth
    recipes.last(config, arg.epochs or budget.long_epochs)
    config.schedule.rate = budget.scratch_rate
    return config
