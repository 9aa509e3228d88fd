"""Tunes one descendant of a learngene, on the data the learngene was trained on.

Paper: SWS, 2404.16897: 10 epochs, no warm-up, no distillation.

    python -m sws_jax.main \\
        --config=configs/des_deit.py:learngene=results/digits/learngene.safetensors

tunes 12 blocks on digits: some 15 seconds on two CPU cores, 98 % or above. With
variant=S/16 (Ti/16, B/16) and dataset= it is the paper's tuning, meant for
accelerators and not run by its authors. Arguments:

    variant     digits (default), 32px, Ti/16, S/16 or B/16
    dataset     digits, a folder, tfds:NAME or an .npz file; needed but for digits
    image_size  pixels; 0 takes 224 (32px: 32), or for digits the source's own
    profile     consistent (default), or official: as the released code
    learngene   the file to start from; required
    depth       of the descendant; 0 takes 12, or as many as the allotment has
    allotment   instead of the rule: copies of each gene, like 3-3-2-2-2
    epochs      0 keeps the recipe's: 5 for digits, 3 for 32px, or 10
"""

from sws_jax.jobs import recipes


def get_config(arg=None):
    arg = recipes.parse_recipe(arg, learngene="", depth=0, allotment=(), epochs=0.0)
    recipes.require(arg, "learngene")
    depth = arg.depth or sum(arg.allotment) or 12
    config = recipes.job("single", name=f"des-{recipes.slug(arg.variant)}-L{depth}")
    budget = recipes.recipe(config, arg)
    config.model.depth = depth
    config.init.update(learngene=arg.learngene, allotment=arg.allotment)
    config.schedule.update(recipes.tuning(budget))
    recipes.last(config, arg.epochs or budget.tune_epochs)
    config.evaluation.milestones = (0.0, 1.0)
    return config
