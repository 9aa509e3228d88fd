"""Carries a learngene to another dataset: all inherited but the head.

Paper: SWS, 2404.16897, section 4.3. Its downstream schedules are not published; the
ones here are this project's.

    python -m sws_jax.main \\
        --config=configs/transfer.py:learngene=LEARNGENE,dataset=DATA,depths=6-12

tunes a descendant of each depth on a folder of images, a prepared TFDS set or arrays;
compare=full adds nets from scratch. The position embedding is resized to
the images. Arguments:

    variant     digits (default), 32px, Ti/16, S/16 or B/16
    dataset     digits, a folder, tfds:NAME or an .npz file; required
    image_size  pixels; 0 takes 224 (32px: 32), or for digits the source's own
    profile     consistent (default), or official: as the released code
    learngene   the file to start from; required
    depths      of the descendants, like 6-9-12; 12
    epochs      of tuning; 0 takes 10 (digits, 32px) or 50
    compare     untuned, tune (default) or full
    seeds       of tuning and scratch at each depth, 1
"""

from sws_jax.jobs import recipes


def get_config(arg=None):
    arg = recipes.parse_recipe(
        arg, learngene="", depths=(12,), epochs=0.0, compare="tune", seeds=1
    )
    recipes.require(arg, "learngene", "dataset")
    config = recipes.job(
        "descendants",
        name=f"transfer-{recipes.slug(arg.variant)}",
    )
    budget = recipes.recipe(config, arg)
    epochs = arg.epochs or budget.transfer_epochs
    config.compare = dict(
        level=arg.compare,
        depths=arg.depths,
        long_epochs=budget.transfer_long_epochs,
        seeds=arg.seeds,
    )
    config.init.learngene = arg.learngene
    recipes.last(config, epochs)
    config.schedule.rate = budget.transfer_rate
    config.evaluation.milestones = (1.0,)
    config.scratch = dict(
        init=dict(learngene=""),
        schedule=dict(rate=budget.scratch_rate, warmup_epochs=2.0),
    )
    return config
