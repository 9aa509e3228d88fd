"""What a run does after some of its steps, besides training."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Hook(NamedTuple):
    """Something that is done after some steps.

    Attributes:
      is_due: from the number of steps done to whether it is done then. Pure, so that a
        run that was stopped does it after the same steps as one that was not.
      act: does it, and is handed that number. The numbers of all steps are known by
        then, and the clock of the training stands still.
    """

    is_due: Callable[[int], bool]
    act: Callable[[int], None]


def every(steps: int, act: Callable[[int], None], *, last: int) -> Hook:
    """A hook for each time that so many steps are done, and for the end.

    Args:
      steps: between two times.
      act: as in `Hook`.
      last: steps of the run.
    """
    return Hook(lambda done: done % steps == 0 or done == last, act)
