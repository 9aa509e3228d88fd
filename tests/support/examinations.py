"""The findings of ``doctor`` on a job, by check."""

from sws_jax import doctor
from sws_jax.doctor.base import Case
from sws_jax.jobs import commandline
from sws_jax.runtime.rendezvous import Start

SMOKE = "--config=configs/smoke.py"


def examined(workdir, *arguments, checks=()):
    """Check -> its findings, of the named checks and `config`."""
    argv = [*(arguments or (SMOKE,)), f"--workdir={workdir}"]
    if not any(a.startswith("--config=") for a in argv):
        argv.insert(0, SMOKE)
    config, workdir = commandline.parse(argv)
    case = Case(config, workdir, Start(), tuple(argv))
    names = {"config", *checks}
    chosen = [check for check in doctor.CHECKS if check.name in names]
    findings: dict[str, list] = {}
    for line in doctor.examine(case, lambda line: None, checks=chosen):
        findings.setdefault(line.check, []).append(line.finding)
    return findings


def only(findings, check):
    """The one finding of a check."""
    (finding,) = findings[check]
    return finding


def expect(finding, state, *words):
    """Asserts the state of a finding, and words of its text or advice."""
    assert finding.state == state, finding
    for word in words:
        assert word in f"{finding.text} | {finding.advice}", finding


def on(folder):
    """Flags for a run on a folder of images."""
    return f"--config.data.source={folder}", "--config.model.patch_size=4"
