"""The whole chain of configs/aux_deit.py in miniature: does everything still work?

    python -m sws_jax.main --config=configs/smoke.py

Digits, one Aux-Net of stages 1-2-1, two depths, two epochs each: half a minute on
two CPU cores. The accuracies mean nothing. One argument:

    profile     consistent (default), or official: as the released code
"""

import os

from sws_jax.jobs import commandline, recipes


def get_config(arg=None):
    arg = recipes.parse(arg, profile="consistent")
    beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "aux_deit.py")
    chosen = f"stages=1-2-1,depths=2-4,profile={arg.profile}"
    config = commandline.load(f"{beside}:{chosen}").unlock()
    config.name = "smoke"
    config.model.width = 32
    # The official rate, set once per epoch and one late, would warm up all of both.
    warmup = 0.0 if arg.profile == "official" else 0.5
    config.schedule.update(total_epochs=2.0, warmup_epochs=warmup)
    config.ancestor.model.depth = 2
    config.ancestor.schedule.total_epochs = 4.0
    config.tune.schedule.total_epochs = 2.0
    config.compare.long_epochs = 10.0
    config.evaluation.every_epochs = 1.0
    config.teacher.min_accuracy = 0.0
    return config
