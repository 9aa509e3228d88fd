"""Learngene methods, from the ancestor to descendants of many depths.

Paper: Exploring Learngene via Stage-wise Weight Sharing for Initializing
Variable-sized Models, 2404.16897, with DeiT (2012.12877) as its recipe. Other methods
have the same teacher, loss and schedule: method=tleg is Transformer as Linear Expansion
of Learngene, 2312.05614.

    python -m sws_jax.main --config=configs/aux_deit.py

trains, on scikit-learn's digits and two CPU cores, an ancestor of 6 blocks, distils
it into an Aux-Net of stages 3-3-4-3-3, writes the learngene, and compares
descendants of six depths with nets from scratch. A few minutes; the README has the
table it printed.

    python -m sws_jax.main \\
        --config=configs/aux_deit.py:variant=32px,dataset=DATA.npz,seeds=3

is the comparison on natural images of 32 px: hours, on two CPU cores; the README has
its table too. Runs that do not wait for each other go at once, one on each core.

    python -m sws_jax.main \\
        --config=configs/aux_deit.py:variant=S/16,dataset=DATA,teacher=PATH

is the paper's Aux-S at 224 px (Ti/16 and B/16 likewise): it trains no ancestor and
ends at the learngene and the untuned depths. It is meant for accelerators and was
not run by its authors: no hours and no accuracy are promised. Arguments:

    variant     digits (default), 32px, Ti/16, S/16 or B/16
    dataset     digits, a folder, tfds:NAME or an .npz file; needed but for digits
    image_size  pixels; 0 takes 224 (32px: 32), or for digits the source's own
    profile     consistent (default), or official: as the released code
    method      sws (default) or tleg
    methods     several in one job, like sws-tleg, which share all that they can
    teacher     weights file or run directory; needed for Ti/16, S/16 and B/16
    stages      of the Aux-Net of SWS, 3-3-4-3-3 (32px: 2-2-2)
    depths      of the descendants, like 6-9-12
    compare     untuned (accuracy before tuning), tune, or full (and scratch)
    seeds       of tuning and scratch at each depth, 1; a table gives their spread
"""

from sws_jax.jobs import recipes


def get_config(arg=None):
    arg = recipes.parse_recipe(
        arg,
        method="",
        methods="",
        teacher="",
        stages=(),
        depths=(),
        compare="",
        seeds=1,
    )
    methods = recipes.methods(arg)
    small = arg.variant in recipes.SMALL
    stages = arg.stages or recipes.budget(arg.variant).stages
    named = stages if arg.stages or "sws" in methods else ()
    config = recipes.job(
        "chain",
        name="-".join([*methods, recipes.slug(arg.variant), *map(str, named)]),
        methods=methods,
    )

    # The run of an Aux-Net; every other run changes what it needs to.
    budget = recipes.recipe(config, arg)
    config.compare = dict(
        level=arg.compare or ("full" if small else "untuned"),
        depths=arg.depths or budget.depths,
        long_epochs=budget.long_epochs,
        seeds=arg.seeds,
    )
    plain = recipes.auxiliary(config, stages)
    config.teacher.path = arg.teacher
    config.loss.kind = "soft"
    config.schedule.update(total_epochs=budget.aux_epochs, rate=budget.aux_rate)

    labels_only = dict(loss=dict(kind="none"), teacher=dict(path=""))
    if small:
        config.ancestor = dict(
            model={**plain, **dict(budget.ancestor)},
            schedule=dict(
                total_epochs=budget.ancestor_epochs, rate=budget.ancestor_rate
            ),
            **labels_only,
        )
    config.tune = dict(
        model=plain,
        schedule=recipes.tuning(budget),
        evaluation=dict(milestones=(0.0, 1.0)),
        checkpoint=dict(final=not small),
        **labels_only,
    )
    config.scratch = dict(
        model=plain,
        schedule=dict(rate=budget.scratch_rate),
        checkpoint=dict(final=not small),
        **labels_only,
    )
    return config
