"""Runs the job of a config: ``python -m sws_jax.main --config=configs/aux_deit.py``."""

from __future__ import annotations

import os
import signal
import sys

from sws_jax import configs
from sws_jax.errors import UserError

USAGE = """\
usage: python -m sws_jax.main --config=FILE[:key=value,...] [--workdir=DIR]
                              [--config.field=value ...]

Runs the job that a config describes; the same command again goes on where it
stopped, and does nothing twice.

  --config=FILE[:ARGS]   configs/aux_deit.py, configs/des_deit.py, ...; the text on top
                         of each file says what it does and which arguments it takes
  --config.a.b=value     overrides one field; tuples are written "(1,2,3)"
  --config.mesh.dry_run=DEVICES
                         runs nothing, and prints what each device would hold and send;
                         DEVICES are a number or named, as v5e-256 or 8xH100
  --workdir=DIR          default runs/NAME, with the config's name

exit codes: 0 done; 1 stopped with an error; 2 the request cannot be met;
            75 stopped by SIGTERM with everything saved: start it again
"""

EXIT_ERROR, EXIT_REFUSED, EXIT_PREEMPTED = 1, 2, 75


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code; see `USAGE`."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or {"-h", "--help"} & set(argv):
        print(USAGE, end="")
        return 0 if argv else EXIT_REFUSED
    try:
        config, workdir = configs.parse(argv)
    except UserError as error:
        return _refuse(error, EXIT_REFUSED)
    # JAX starts with the first import below; a refused request need not wait for it.
    from sws_jax import chain, dry_run, train
    from sws_jax.progress import say

    try:
        if config.mesh.dry_run:
            dry_run.run(config, workdir)
            return 0
        say(_greeting())
        chain.execute(config, workdir, should_stop=_on_sigterm())
    except train.Preempted as stop:
        return _refuse(stop, EXIT_PREEMPTED)
    except train.NonFinite as error:
        return _refuse(error, EXIT_ERROR)
    except UserError as error:
        return _refuse(error, EXIT_REFUSED)
    except OSError as error:
        return _refuse(error, EXIT_ERROR)
    return 0


def _greeting() -> str:
    import jax

    from sws_jax import train

    return (
        f"process {jax.process_index()} of {jax.process_count()}, "
        f"{jax.device_count()} {jax.devices()[0].platform} device(s), "
        f"{train.hardware()}, jax {jax.__version__}"
    )


def _on_sigterm():
    """A question that is true once the process was asked to end."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    return lambda: bool(asked)


def _refuse(error: BaseException, code: int) -> int:
    print(f"sws_jax: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.exit(main())
