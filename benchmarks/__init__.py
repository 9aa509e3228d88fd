"""How fast the project is, measured: programs beside the package, not part of it.

    python -m benchmarks --help

Each program has one function `run` that returns the rows of its table, and says at its
top what it measures and how to read it.
"""

from sws_jax import xla_flags

xla_flags.add()  # for each of the programs, and those that they start
