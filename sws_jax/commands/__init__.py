"""The commands of ``python -m sws_jax``: one file each.

A command module has `HELP` (one line), `EXAMPLE`, `add_arguments(parser)` and
`run(args)`, which returns an exit code. Modules import what is slow inside `run`. One
that takes a config sets the default ``flags=[]``, and finds there the flags of
``python -m sws_jax.main``.
"""
