"""Carries a learngene to another dataset: fresh head, all else inherited.

Paper: SWS, 2404.16897, section 4.3. Its downstream schedules are not published; the
ones here are this project's.

    python -m sws_jax.main \\
        --config=configs/transfer.py:learngene=LEARNGENE,dataset=DATA.npz,depths=6-12

tunes a descendant of each depth on the arrays in DATA.npz; compare=full adds nets
from scratch. The images keep their size, unless image_size= says another; the
position embedding is resized to it. Arguments:

    learngene   the file to start from; required
    dataset     the path of an .npz file; required
    depths      of the descendants, like 6-9-12; 12
    epochs      of tuning; 0 takes 10 for the small recipe, 50 for the others
    compare     untuned, tune (default) or full
    variant     digits (default: the small recipe), Ti/16, S/16 or B/16
    image_size  pixels; 0 takes 224, or for digits the source's own
"""

from sws_jax import presets


def get_config(arg=None):
    arg = presets.parse(
        arg,
        learngene="",
        dataset="",
        depths=(12,),
        epochs=0.0,
        compare="tune",
        variant="digits",
        image_size=0,
    )
    presets.require(arg, "learngene", "dataset")
    small = arg.variant == "digits"
    config = presets.job(
        "descendants",
        name=f"transfer-{presets.slug(arg.variant)}",
        compare=dict(
            level=arg.compare,
            depths=arg.depths,
            long_epochs=80.0 if small else 300.0,
        ),
    )
    presets.recipe(config, arg.variant, arg.image_size)
    config.data.source = arg.dataset
    config.init.learngene = arg.learngene
    config.schedule.total_epochs = arg.epochs or (10.0 if small else 50.0)
    config.evaluation.milestones = (1.0,)
    if small:
        config.schedule.rate = 2e-3
    config.scratch = dict(init=dict(learngene=""), schedule=dict(warmup_epochs=2.0))
    return config
