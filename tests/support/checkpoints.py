"""Directories of checkpoints, and damage to their files."""

import pathlib

import jax

from sws_jax.models import networks
from sws_jax.storage.names import CHECKPOINTS
from sws_jax.training.checkpoints import Checkpoints

from support.learngenes import describe
from support.networks import params_of

CLOCK = {"seconds": 1.5, "steps": 3}


def fill(directory, spec, steps, **kwargs):
    """Checkpoints of other parameters at each step; returns them."""
    manager = Checkpoints(str(directory), **kwargs)
    trees = {step: {"params": params_of(spec, seed=step)} for step in steps}
    for step, items in trees.items():
        manager.save(
            step,
            items,
            clock=CLOCK,
            description=describe(spec, step=step),
            val_top1=steps[step],
        )
    manager.close()
    return trees


def abstract(spec):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return {
        "params": jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            networks.abstract_params(spec),
        )
    }


def data_files(directory, step):
    """The files of a checkpoint's params that hold numbers; copies among them."""
    folder = pathlib.Path(directory) / CHECKPOINTS / str(step) / "params"
    large = [p for p in folder.rglob("d/*") if p.stat().st_size > 1000]
    assert large
    return large


def flip_a_bit(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0x10
    path.write_bytes(raw)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
