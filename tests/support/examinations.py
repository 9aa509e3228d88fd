"""What ``doctor`` says of a job, by check."""

from sws_jax import doctor
from sws_jax.doctor.base import Case
from sws_jax.jobs import commandline
from sws_jax.runtime.rendezvous import Start

SMOKE = "--config=configs/smoke.py"


def examined(workdir, *arguments, checks=()):
    """State and text of all lines by check, of the named checks and `config`."""
    argv = [*(arguments or (SMOKE,)), f"--workdir={workdir}"]
    if not any(a.startswith("--config=") for a in argv):
        argv.insert(0, SMOKE)
    config, workdir = commandline.parse(argv)
    case = Case(config, workdir, Start(), tuple(argv))
    wanted = {"config", *checks}
    made = [check for check in doctor.CHECKS if check.name in wanted]
    found: dict[str, list] = {}
    for line in doctor.examine(case, lambda line: None, checks=made):
        found.setdefault(line.check, []).append(line.finding)
    return found


def only(found, check):
    (line,) = found[check]
    return line


def said(line, state, *words):
    """A line has that state, and the words in it or in its advice."""
    assert line.state == state, line
    for word in words:
        assert word in f"{line.text} | {line.advice}", line


def on(folder):
    return f"--config.data.source={folder}", "--config.model.patch_size=4"
