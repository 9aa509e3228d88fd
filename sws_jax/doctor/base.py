"""Checks, their findings, and the case that they examine and share."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ml_collections

from sws_jax.data import Dataset
from sws_jax.jobs import places, preflight
from sws_jax.jobs.rows import Run
from sws_jax.preview.survey import Survey
from sws_jax.runtime import rendezvous
from sws_jax.storage import documents, paths, refusals

# For processes to connect; a run may wait longer.
_START_SECONDS = 30

# From good to bad.
OK, WARNING, LEFT_OUT, PROBLEM = STATES = ("ok", "warning", "left out", "problem")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One result of a check.

    Attributes:
      state: one of `STATES`.
      text: what is there, or what is wrong.
      advice: the next command or change to make, where the text does not name it.
    """

    state: str
    text: str
    advice: str = ""


def ok(text: str) -> Finding:
    return Finding(OK, text)


def warning(text: str, advice: str = "") -> Finding:
    return Finding(WARNING, text, advice)


def problem(text: str, advice: str = "") -> Finding:
    return Finding(PROBLEM, text, advice)


def worst(states: Iterable[str]) -> str:
    return max(states, key=STATES.index, default=OK)


class Unknown(Exception):
    """A check cannot be made, for a reason that another check has reported."""


class Case:
    """What is examined, and what the checks have learned of it.

    Args:
      config: of the job.
      workdir: of the job.
      start: how its processes find each other.
      arguments: of the command, repeated in advice.

    Attributes:
      rows: the job's runs; empty until the config is checked.
      place: of this process among several; None where it is alone.
      unplaced: why the place is not known, where the cluster does not tell.
      together: whether the processes have met, and can compare their findings.
      apart: whether they could not meet.
      states: of the checks that were made, by their names.
      unanswering_buckets: those that have not answered.
      data: what the runs train on, or what is known of it (`sws_jax.doctor.unstaged`);
        None until it is read.
      probe_file: one that process 0 keeps in the work directory for the others to see.
      cleanup: removes the probe file, once all processes have seen it.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: str,
        start: rendezvous.Start,
        arguments: tuple[str, ...] = (),
    ):
        self.config, self.workdir, self.arguments = config, workdir, arguments
        timeout = min(start.start_timeout, _START_SECONDS)
        self.start = dataclasses.replace(start, start_timeout=timeout)
        self.rows: list[Run] = []
        self.place: rendezvous.Place | None = None
        self.unplaced = ""
        self.together = self.apart = False
        self.states: dict[str, str] = {}
        self.unanswering_buckets: set[str] = set()
        self.data: Dataset | None = None
        self.probe_file = ""
        self.cleanup = contextlib.ExitStack()

    def find_place(self) -> None:
        """Finds the place of this process among several, or why it is not known."""
        try:
            self.place = rendezvous.placed(self.start)
        except rendezvous.NotComplete as error:
            self.unplaced = str(error)

    @property
    def index(self) -> int:
        return self.place.index if self.place else 0

    @contextlib.contextmanager
    def asking(self, path: str) -> Iterator[None]:
        """Uses a path in the block, and notes a bucket that does not answer.

        Storage libraries retry for half a minute: no bucket is asked a second time.

        Raises:
          Unknown: the bucket has not answered before.
        """
        self._check_answered(path)
        try:
            yield
        except refusals.Unreachable:
            self.unanswering_buckets.add(refusals.bucket(path))
            raise

    def _check_answered(self, path: str) -> None:
        if (
            paths.is_remote(path)
            and (bucket := refusals.bucket(path)) in self.unanswering_buckets
        ):
            raise Unknown(f"needs {bucket}, which does not answer")

    @property
    def is_sized(self) -> bool:
        """Whether the size of a network's images is known."""
        return self.data is not None and self.data.image_shape[0] > 0

    def survey(self) -> Survey:
        """The job's networks, for the data that was read or for assumed data.

        Raises:
          Unknown: nothing tells the size of images, or a bucket does not answer.
        """
        if not self.is_sized and not self.config.data.image_size:
            raise Unknown("needs data, which alone says how large images are")
        for row in self.rows:
            init, ancestor = row.config.init, row.config.phase.ancestor
            taught_by = row.config.teacher.path
            for path in (taught_by, ancestor, init.learngene, init.network):
                if not self.trained_by(path):
                    self._check_answered(places.resolve(path, self.workdir))
        return Survey(self.config, self.workdir, data=self.data, older=self.older)

    def older(self, name: str) -> bool:
        """As `preflight.older_in`; False for a work directory that cannot be read."""
        return self.is_readable and preflight.older_in(self.workdir)(name)

    def waiting(self) -> list[Run]:
        """Runs that are not known to be done: finished ones need no files."""
        if not self.is_readable:
            return self.rows
        return [row for row in self.rows if not preflight.is_done(row, self.workdir)]

    @property
    def is_readable(self) -> bool:
        """Whether the work directory can be read, as far as it was tried."""
        return self.states.get("directory") not in (PROBLEM, LEFT_OUT)

    def assumed(self, survey: Survey) -> str:
        """The assumptions of a survey without data, to be added to its results."""
        return "" if self.data else f"; {'; '.join(survey.notes)}"

    def again(self, *more: str, program: str = "sws_jax.main") -> str:
        """A command with the arguments of this one, and some more."""
        return " ".join(["python -m", program, *self.arguments, *more])

    def trained_by(self, path: str) -> str:
        """The run of this job that a ``run:NAME`` path stands for; empty for none."""
        name = path.removeprefix(places.RUN)
        is_run = path.startswith(places.RUN) and any(r.name == name for r in self.rows)
        return name if is_run else ""

    def config_json(self) -> dict[str, Any]:
        """The config as JSON has it."""
        return documents.plain(self.config.to_dict())


@dataclasses.dataclass(frozen=True)
class Check:
    """A part of the examination.

    Attributes:
      name: in the table.
      function: says what it finds, line by line; a `UserError` or `OSError` of its is
        a problem.
      needs: names of the checks that it makes no sense without.
      unless: names of those whose problems it would only say again.
      needs_processes: whether it compares several processes.
    """

    name: str
    function: Callable[[Case], Iterable[Finding]]
    needs: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    needs_processes: bool = False

    def hindered(self, states: Mapping[str, str]) -> list[str]:
        """Names of the failed checks because of which this one is left out."""
        broken = [n for n in self.needs if states.get(n) in (PROBLEM, LEFT_OUT)]
        return broken + [n for n in self.unless if states.get(n) == PROBLEM]
