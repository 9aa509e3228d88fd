"""The table of small faults fits the code; `support.mutations` is run by hand."""

import pytest

from support import mutations
from support.mutations import MUTATIONS, ROOT, Mutation


def test_the_table_fits_the_code():
    """Each text is there once, what takes its place compiles, and its tests are there.

    A mutation that no longer applies is written anew, for the promise that it names.
    """
    assert len(MUTATIONS) >= 40
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS)
    stale = [m.name for m in MUTATIONS if m.mutated(ROOT) is None]
    assert not stale
    for mutation in MUTATIONS:
        assert mutation.old != mutation.new and mutation.tests, mutation.name
        compile(mutation.mutated(ROOT), mutation.name, "exec")
        assert mutations.missing_tests(mutation, ROOT) == [], mutation.name


@pytest.mark.parametrize(
    "old, passes, expected",
    [
        ("one = 1", True, "lives"),
        ("one = 1", False, "killed"),
        ("three = 3", True, "no longer applies"),
        ("= 1", True, "no longer applies"),  # occurs twice
        ("= 2", True, "no longer applies"),  # in two files
    ],
)
def test_what_becomes_of_a_mutation(old, passes, expected, tmp_path, monkeypatch):
    """The tests see the slip, in the copy that they are given, which is mended."""
    path = tmp_path / "sws_jax" / "some.py"
    path.parent.mkdir()
    path.write_text("one = 1\nother = 1\n")
    for name in ("low", "high"):
        path.with_name(f"{name}.py").write_text("both = 2\n")
    seen = []

    def run(tests, root):
        seen.append((tests, root, path.read_text()))
        return passes, ""

    monkeypatch.setattr(mutations, "run", run)
    slip = Mutation("slip", old, "one = 2", "it", ("test_some::test_one",))
    assert mutations.verdict(slip, tmp_path) == expected
    assert path.read_text() == "one = 1\nother = 1\n"
    tests = ["tests/test_some.py::test_one"]
    applied = [(tests, tmp_path, "one = 2\nother = 1\n")]
    assert seen == ([] if expected == "no longer applies" else applied)
