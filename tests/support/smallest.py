"""The smallest job: one block, one epoch of digits."""

import pathlib

from sws_jax.jobs import commandline

ROOT = pathlib.Path(__file__).parent.parent.parent
NAME = "scratch-digits-L1"


def asked(workdir) -> tuple:
    """The config and the work directory of a tiny job."""
    return commandline.parse(
        [
            f"--config={ROOT}/configs/scratch_deit.py:depth=1,epochs=1",
            "--config.name=" + NAME,
            "--config.global_batch_size=256",
            "--config.schedule.warmup_epochs=0.5",
            "--config.model.width=8",
            "--config.model.heads=1",
            f"--workdir={workdir}",
        ]
    )
