"""Stage-wise weight sharing, from the ancestor to descendants of many depths.

Paper: Exploring Learngene via Stage-wise Weight Sharing for Initializing
Variable-sized Models, 2404.16897, with DeiT (2012.12877) as its recipe.

    python -m sws_jax.main --config=configs/aux_deit.py

trains, on scikit-learn's digits and two CPU cores, an ancestor of 6 blocks, distils
it into an Aux-Net of stages 3-3-4-3-3, writes the learngene, and compares
descendants of six depths with nets from scratch. A few minutes; the README has the
table it printed.

    python -m sws_jax.main \\
        --config=configs/aux_deit.py:variant=S/16,dataset=DATA,teacher=PATH

is the paper's Aux-S at 224 px (Ti/16 and B/16 likewise): it trains no ancestor and
ends at the learngene and the untuned depths. It is meant for accelerators and was
not run by its authors: no hours and no accuracy are promised. Arguments:

    variant     digits (default), Ti/16, S/16 or B/16
    dataset     digits, or the path of an .npz file
    teacher     weights file or run directory; needed for all variants but digits
    stages      3-3-4-3-3
    depths      of the descendants, like 6-9-12
    compare     untuned (accuracy before tuning), tune, or full (and scratch)
    image_size  pixels; 0 takes 224, or for digits the source's own
"""

from sws_jax import presets


def get_config(arg=None):
    arg = presets.parse(
        arg,
        variant="digits",
        dataset="",
        teacher="",
        stages=(3, 3, 4, 3, 3),
        depths=(),
        compare="",
        image_size=0,
    )
    small = arg.variant == "digits"
    config = presets.job(
        "sws",
        name=f"sws-{presets.slug(arg.variant)}-{'-'.join(map(str, arg.stages))}",
        compare=dict(
            level=arg.compare or ("full" if small else "untuned"),
            depths=arg.depths or (presets.DEPTHS if small else presets.PAPER_DEPTHS),
            long_epochs=40.0 if small else 300.0,
        ),
    )

    # The Aux-Net's own run; every other run changes what it needs to.
    presets.recipe(config, arg.variant, arg.image_size)
    config.data.source = arg.dataset or config.data.source
    config.model.stages = arg.stages
    config.teacher.path = arg.teacher
    config.loss.kind = "soft"
    if small:
        config.schedule.update(total_epochs=40.0, rate=4e-3)
    else:
        # Aux-S 150 epochs, Aux-B 100 (published code); Ti as S.
        config.schedule.total_epochs = 100.0 if arg.variant[0] == "B" else 150.0

    labels_only = dict(loss=dict(kind="none"), teacher=dict(path=""))
    if small:
        config.ancestor = dict(
            model=dict(depth=6, stages=(), drop_path=0.0),
            schedule=dict(total_epochs=30.0, rate=2e-3),
            **labels_only,
        )
    config.tune = dict(
        model=dict(stages=()),
        schedule=presets.tuning(arg.variant),
        evaluation=dict(milestones=(0.0, 1.0)),
        checkpoint=dict(final=not small),
        **labels_only,
    )
    config.scratch = dict(
        schedule=dict(rate=2e-3 if small else 5e-4),
        checkpoint=dict(final=not small),
        **labels_only,
    )
    return config
