"""Runs the job of a config: ``python -m sws_jax.main --config=configs/aux_deit.py``."""

from __future__ import annotations

from sws_jax.runtime import entry

if __name__ == "__main__":
    entry.begin()

# ruff: noqa: E402  what is imported below takes a while
import os
import sys
from typing import TYPE_CHECKING

from sws_jax import xla_flags
from sws_jax.errors import Interrupted, Stopped, UserError

if TYPE_CHECKING:
    from sws_jax.runtime import signals

USAGE = """\
usage: python -m sws_jax.main --config=FILE[:key=value,...] [--workdir=DIR]
                              [--config.field=value ...] [--parallel=N]
                              [--coordinator=HOST:PORT --num_processes=N --process_id=I]

Runs the job that a config describes; the same command again goes on where it
stopped, and does nothing twice.

  --config=FILE[:ARGS]   configs/aux_deit.py, configs/des_deit.py, ...; the text on top
                         of each file says what it does and which arguments it takes
  --config.a.b=value     overrides one field; tuples are written "(1,2,3)". A field of
                         `model` that the file a run starts from has otherwise is
                         refused; those that are not named follow the file
  --config.mesh.dry_run=DEVICES
                         runs nothing, and prints what each device would hold and send;
                         DEVICES are a number or named, as v5e-256 or 8xH100
  --workdir=DIR          default runs/NAME, with the config's name; gs://BUCKET/DIR too
  --parallel=N           runs of the job at once, each in a process of its own; default
                         as many as this machine has cores, memory and work for, and 1
                         on accelerators, in a bucket and among several processes. The
                         results are the same
  --help                 this, and all fields of a config with what they mean

Several processes (hosts, or accelerators of one) run the same command. Cloud TPU, GKE,
Slurm and Open MPI tell them where the others are; elsewhere each is told:

  --coordinator=H:PORT   process 0, and a free port of its host
  --num_processes=N      of the job
  --process_id=I         of this one, from 0
  --start_timeout=300    seconds in which all have to come
  --lost_after=100       seconds of silence after which a process counts as dead, and
                         all others end

exit codes: 0 done; 1 stopped with an error; 2 the request cannot be met;
            3 a device computed wrongly: a replayed step gave another result;
            75 stopped by SIGTERM with everything saved, or another process was lost,
            or a bucket does not answer: start it again (134, where JAX itself ended
            it for a lost process), unless one of the processes has another code,
            which says why;
            130 stopped by Ctrl-C with everything saved (a second one stops at once)
"""

EXIT_ERROR, EXIT_REFUSED, EXIT_DIVERGED = 1, 2, 3

_OUT_OF_MEMORY = (
    "there is not enough memory: a smaller global_batch_size, more accum_steps, "
    "compute.remat=True or a larger mesh.fsdp take less, and mesh.dry_run says how much"
)


def main(argv: list[str] | None = None) -> int:
    """Runs a job; only a program of its own starts helpers without being asked to.

    Args:
      argv: flags; default those of this program.

    Returns:
      The exit code; see `USAGE`.
    """
    by_name = argv is None
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        print(USAGE, end="")
        return EXIT_REFUSED
    if {"-h", "--help"} & set(argv):
        from sws_jax.jobs import reference

        print(f"{USAGE}\n{reference.listing()}", end="")
        return 0
    from sws_jax.runtime import signals

    xla_flags.add()
    with signals.Asked() as asked:
        return _run(argv, asked, by_name)


def _run(argv: list[str], asked: signals.Asked, by_name: bool) -> int:
    """Runs the job, or its dry run; returns the exit code.

    Args:
      argv: flags of the processes and of the job.
      asked: the signals to end.
      by_name: whether this is a program of its own.
    """
    from sws_jax.jobs import commandline
    from sws_jax.runtime import crew, rendezvous

    if crew.is_helper():
        crew.serve(asked)
    try:
        rendezvous_flags, rest = rendezvous.parse(argv)
        wish, rest = commandline.parallel(rest)
        config, workdir = commandline.parse(rest)
    except UserError as error:
        return _refuse(error, EXIT_REFUSED)
    # JAX starts with the first import below; a refused request need not wait for it.
    from sws_jax.jobs import remarks
    from sws_jax.jobs.rows import runs
    from sws_jax.preview import dry_run
    from sws_jax.runtime import compiled, processes, progress
    from sws_jax.training.loop import Preempted

    _hush_storage()
    try:
        if config.mesh.dry_run:
            dry_run.run(config, workdir)
            return 0
        rendezvous.start(rendezvous_flags, _job(config))
        if not crew.is_helper():
            print(_greeting(), flush=True)
            # Several processes would have to find the same programs, each in its home.
            if processes.is_alone() and (kept := compiled.keep()):
                progress.say(kept)
            for line in remarks.of_named(config, commandline.named(rest), runs(config)):
                progress.say(line)
        wish = wish if by_name else wish or 1
        return _execute(config, workdir, wish, argv, asked)
    except Preempted as stop:
        return _refuse(stop, asked.exit_code)
    except Exception as error:
        code = _explain(error)
        processes.leave(code)
        return code


def _execute(
    config, workdir: str, wish: int | None, argv: list[str], asked: signals.Asked
) -> int:
    """Does the runs of the job, with helpers where several can begin at once.

    Args:
      config: of the job.
      workdir: of the job.
      wish: runs at once; None leaves it to the machine.
      argv: flags of this command, which helpers get too.
      asked: the signals to end.

    Returns:
      The exit code: of a helper that failed, its own.
    """
    from sws_jax.jobs import execute, parallel
    from sws_jax.jobs.rows import runs
    from sws_jax.runtime import crew, processes, progress
    from sws_jax.training.loop import Preempted

    should_stop = processes.stop_asked(asked)
    if crew.is_helper():
        shared = execute.Shared(reports=False)
        execute.execute(config, workdir, should_stop=should_stop, shared=shared)
        return 0
    rows = runs(config)
    choice = parallel.choose(wish, rows, workdir)
    if len(rows) > 1 and wish != 1:
        progress.say(str(choice))
    if choice.count == 1:
        execute.execute(config, workdir, should_stop=should_stop)
        return 0
    command = [sys.executable, "-m", "sws_jax.main", *argv]
    with crew.Crew(command, choice.count, asked) as helpers:
        shared = execute.Shared(helpers.call, lambda: helpers.at_work)
        try:
            execute.execute(
                config,
                workdir,
                should_stop=lambda: should_stop() or helpers.failure is not None,
                shared=shared,
            )
        except Preempted:
            if helpers.failure is None:
                raise
    if helpers.failure is not None:
        code, sentence = helpers.failure
        return _refuse(sentence, code)
    return 0


def _explain(error: Exception) -> int:
    """Says what ended the job, and returns the exit code for it."""
    from sws_jax.runtime import processes, signals, words
    from sws_jax.storage import refusals
    from sws_jax.training.replay import Diverged

    if isinstance(error, Interrupted | refusals.Unreachable):
        return _refuse(error, signals.EXIT_AGAIN)
    if isinstance(error, Diverged):
        return _refuse(error, EXIT_DIVERGED)
    if isinstance(error, Stopped):
        return _refuse(error, EXIT_ERROR)
    if isinstance(error, UserError):
        return _refuse(error, EXIT_REFUSED)
    if processes.is_loss(error):
        cause = words.brief(error)
        lost = f"another process is lost ({cause}): start all of them again"
        return _refuse(lost, signals.EXIT_AGAIN)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return _refuse(_OUT_OF_MEMORY, EXIT_ERROR)
    if isinstance(error, OSError):
        return _refuse(error, EXIT_ERROR)
    import traceback

    traceback.print_exception(error)
    return EXIT_ERROR


def _job(config) -> str:
    """A fingerprint of config and versions: the same in all processes of a job."""
    import hashlib

    from sws_jax import version
    from sws_jax.models import description

    identity = [config.to_json_best_effort(), description.versions(), version.VERSION]
    return hashlib.blake2b(repr(identity).encode(), digest_size=16).hexdigest()


def _greeting() -> str:
    import jax

    from sws_jax.runtime import host

    return (
        f"process {jax.process_index()} of {jax.process_count()}, "
        f"{jax.device_count()} {jax.devices()[0].platform} device(s), "
        f"{host.hardware()}, jax {jax.__version__}"
    )


def _hush_storage() -> None:
    """Silences the storage library, whose threads log and print errors that they raise.

    Of a checkpoint that cannot be written, the user sees one sentence.
    """
    import logging

    for name in ("absl", "asyncio"):
        logger = logging.getLogger(name)
        logger.addFilter(lambda record: record.levelno < logging.ERROR)
    shown = sys.unraisablehook

    def hook(unraisable) -> None:
        # A read that is abandoned half-way, and reads and writes after the end.
        code = getattr(unraisable.object, "cr_code", None)
        abandoned = code is not None and "orbax" in code.co_filename
        too_late = str(unraisable.exc_value) == "Event loop is closed"
        if not (abandoned or too_late):
            shown(unraisable)

    sys.unraisablehook = hook


def _refuse(error: BaseException | str, code: int) -> int:
    print(f"sws_jax: {error}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.exit(main())
