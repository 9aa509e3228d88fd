"""What a run remembers of its steps, when it goes on and when older software saved."""

import pytest

from sws_jax.training.history import Begun, History

FLOAT = Begun(dtype="float32", unreadable="stop")
SKIP = Begun(dtype="float32", unreadable="skip")


def history(saved, *, first=5, dtype="float32", unreadable="stop", begun=FLOAT):
    return History(saved, first=first, dtype=dtype, unreadable=unreadable, begun=begun)


def test_a_beginning_is_no_change():
    new = history({}, first=0, dtype="bfloat16", unreadable="skip", begun=SKIP)
    assert new.dtypes == [{"dtype": "bfloat16", "from_step": 0}]
    assert (new.skips_from, new.changes, new.skipped()) == (0, [], 0)


@pytest.mark.parametrize(
    "dtype, changes",
    [
        ("float32", []),
        ("bfloat16", ["computed in bfloat16 from here on, and in float32 before"]),
    ],
)
def test_a_checkpoint_of_older_software_has_the_type_that_the_run_began_with(
    dtype, changes
):
    older = history({"seconds": 2.0, "steps": 3}, dtype=dtype)
    types = [{"dtype": "float32", "from_step": 0}, {"dtype": dtype, "from_step": 5}]
    assert older.dtypes == types[: 1 + len(changes)]
    assert older.changes == changes


@pytest.mark.parametrize(
    "saved, begun, skips_from, changes",
    [
        ({}, SKIP, 0, 0),
        ({}, FLOAT, 5, 1),
        ({"unreadable_from": None}, SKIP, 5, 1),
        ({"unreadable_from": 3}, FLOAT, 3, 0),
    ],
)
def test_images_are_passed_over_from_a_step_on(saved, begun, skips_from, changes):
    going_on = history(saved, unreadable="skip", begun=begun)
    assert (going_on.skips_from, len(going_on.changes)) == (skips_from, changes)


def test_what_is_saved_is_what_was_read_and_added():
    """Fields of newer software too; a line of the log is of all steps before it."""
    saved = {
        "seconds": 2.0, "steps": 3, "unreadable": 4, "unreadable_from": 1,
        "dtypes": [{"dtype": "float32", "from_step": 0}],
        "window": [{"loss": 1.0, "grad_norm": 2.0}], "joules": [7],
    }  # fmt: skip
    going_on = history(saved, unreadable="skip")
    assert going_on.state() == saved
    going_on.add({"loss": 2.0, "grad_norm": 4.0})
    going_on.add_skipped(2)
    assert going_on.state()["window"][1] == {"loss": 2.0, "grad_norm": 4.0}
    assert going_on.state()["unreadable"] == 6
    assert going_on.means() == {"loss": 1.5, "grad_norm": 3.0}
    assert going_on.state()["window"] == []
