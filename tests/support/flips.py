"""A device that computes one bit wrongly, once: in a step of a run, on this machine.

As a program, ``python tests/support/flips.py PROCESS ARGUMENTS...`` is ``python -m
sws_jax.main ARGUMENTS...`` in which the process of that number, of several, has such a
device: its last, in the second computation of step `STEP`.
"""

import functools
import sys

import jax
import numpy as np

from sws_jax import main, trees
from sws_jax.training import step

STEP = 4
LEAF = "params/head/kernel"


def flipped(array, device):
    """The array with another lowest bit in the part of a device, in its last number."""
    parts = []
    for shard in array.addressable_shards:
        part = np.array(shard.data)
        if shard.device == device:
            part.reshape(-1).view(np.uint8)[-part.itemsize] ^= 1
        parts.append(jax.device_put(part, shard.device))
    return jax.make_array_from_single_device_arrays(array.shape, array.sharding, parts)


class Flipping:
    """A step's program with one wrong bit; in all else as the program.

    Args:
      program: of the step.
      device: that has it.
      leaf: the name of the array that has it, of the state after the step.
      computation: of step `STEP` that has it, 0 or 1.
    """

    def __init__(self, program, device, leaf, computation):
        self.program, self.device, self.leaf = program, device, leaf
        self.computation, self.times = computation, 0

    def __getattr__(self, name):
        return getattr(self.program, name)

    def __call__(self, state, *arguments):
        is_the_step = int(state.step) == STEP - 1
        state, metrics = self.program(state, *arguments)
        if is_the_step and self.times == self.computation:
            assert self.leaf in trees.leaf_names(state)
            state = trees.map_with_name(self._flip, state)
        self.times += is_the_step
        return state, metrics

    def _flip(self, name, array):
        return flipped(array, self.device) if name == self.leaf else array


def install(set_attribute, device, leaf=LEAF, computation=1):
    """Has every run of this process compute so; see `Flipping`.

    Args:
      set_attribute: `setattr`, or that of pytest's ``monkeypatch``.
      device: a function that returns it.
      leaf, computation: as in `Flipping`.
    """
    program = step.program

    @functools.wraps(program)
    def wrong(*arguments):
        return Flipping(program(*arguments), device(), leaf, computation)

    set_attribute(step, "program", wrong)


if __name__ == "__main__":
    process, *arguments = sys.argv[1:]
    if f"--process_id={process}" in arguments:
        install(setattr, lambda: jax.local_devices()[-1])
    sys.exit(main.main(arguments))
