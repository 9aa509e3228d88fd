"""What the runs of a comparison are there for: their roles, in rows and in results."""

from __future__ import annotations

from typing import NamedTuple

SINGLE = "single"  # of no comparison
ANCESTOR, AUX = "ancestor", "aux"
TUNED, UNTUNED = "tune", "untuned"
SCRATCH_SHORT, SCRATCH_LONG = "scratch_short", "scratch_long"

# Of networks that a learngene initialises.
DESCENDANTS = (TUNED, UNTUNED)
# Of networks that nothing initialises, with what tables call them.
SCRATCH = {SCRATCH_SHORT: "scratch, same budget", SCRATCH_LONG: "scratch, long"}
# Of the runs that are compared with each other, depth by depth; all others are listed
# one by one.
COMPARED = (*DESCENDANTS, *SCRATCH)


class Before(NamedTuple):
    """What a network that is trained before the learngene is called.

    Attributes:
      title: in the picture.
      arrow: what is done with it next, in the picture.
      listed: in the table.
    """

    title: str
    arrow: str
    listed: str


BEFORE = {
    ANCESTOR: Before("Ans-Net", "distil", "teacher"),
    AUX: Before("Aux-Net", "extract", "Aux-Net"),
}
# Of the run whose network the learngene is taken from.
SOURCE = AUX
