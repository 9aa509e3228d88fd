"""Names of classes decide, whatever their order."""

import pytest

from sws_jax.data import classes
from sws_jax.errors import UserError


@pytest.mark.parametrize(
    "name, kept",
    [
        ("e\u0301", "\u00e9"),
        ("a\nb", "a\\nb"),
        ("\udcff", "\\udcff"),
        ("\u72ac", "\u72ac"),
        ("a\\nb", "a\\nb"),
    ],
)
def test_a_name_is_kept_printable_and_in_one_form(name, kept):
    assert classes.clean(name) == kept == classes.clean(kept)


@pytest.mark.parametrize(
    "names, message",
    [
        (("a", "a"), "two classes are called 'a': "),
        (("\u00e9", "e\u0301"), "differ in their Unicode form"),
        (("a\nb", "a\\nb"), "writes as an escape"),
        (("a", " "), "class 1 has no name"),
        (("",), "class 0 has no name"),
    ],
)
def test_names_that_tell_nothing_apart_are_refused(names, message):
    with pytest.raises(UserError, match=message):
        classes.check(names, "set")


def test_another_order_is_matched_by_name():
    match = classes.match(("b", "c", "e\u0301"), ("\u00e9", "b", "c"), "it", "set")
    assert match.order == (2, 0, 1)
    assert "in another order" in match.note


@pytest.mark.parametrize(
    "theirs, note",
    [
        ((), ""),
        (("a", "b", "c"), ""),
        (("A", "b ", "c"), "in case or blanks"),
        (("a", "b", "z"), "'z' there is 'c' here"),
        (("x", "y", "z"), "other names"),
    ],
)
def test_other_names_are_told(theirs, note):
    match = classes.match(theirs, ("a", "b", "c"), "it", "set")
    assert not match.order
    assert note in match.note and bool(note) == bool(match.note)


def test_another_number_of_classes_is_a_sentence():
    with pytest.raises(UserError, match="class 'a' is output 0 of it and label 2 of s"):
        classes.match(("a", "b"), ("x", "y", "a"), "it", "s")


def test_a_contradiction_is_refused_with_an_example():
    with pytest.raises(UserError, match="class 'a' is output 1 of it and label 0 of s"):
        classes.match(("z", "a", "c"), ("a", "b", "c"), "it", "s")
