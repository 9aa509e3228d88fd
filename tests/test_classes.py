"""Names of classes: kept in one form, and matched before they are counted."""

import re

import pytest

from sws_jax import classes
from sws_jax.errors import UserError

COMPOSED, APART = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    "name, kept",
    [
        ("tea", "tea"),
        (APART, COMPOSED),
        ("\u1112\u1161\u11ab", "\ud55c"),  # Hangul, by its parts
        ("a\nb", "a\\nb"),
        ("a\tb\x00", "a\\tb\\x00"),
        ("caf\udce9", "caf\\xe9"),  # as Python has a byte of Latin-1
        ("\ud800", "\\ud800"),
        ("\u6c34 \u00df", "\u6c34 \u00df"),
    ],
)
def test_a_name_is_kept_in_one_form(name, kept):
    assert classes.clean(name) == kept
    assert classes.clean(kept) == kept
    kept.encode()


@pytest.mark.parametrize(
    "names, words",
    [
        (["a", "b", "a"], "SET: classes 0 and 2 are both named a: rename one"),
        ([COMPOSED, APART], "classes 0 and 1 .* differ in their Unicode form alone"),
        (["a", ""], "class 1 has an empty name"),
        (["a", " \t"], None),  # the tab is kept, and seen
        (["a", "\u3000"], None),
        (["a", " "], "class 1 has an empty name"),
    ],
)
def test_names_tell_classes_apart(names, words):
    if words is None:
        classes.check(names, "SET")
        return
    with pytest.raises(UserError, match=words):
        classes.check(names, "SET")


def match(theirs, ours):
    return classes.match(theirs, ours, who="NET", whose="SET")


def test_the_same_names_decide():
    assert match("abc", "abc") == classes.Match()
    assert match([APART, "b"], [COMPOSED, "b"]) == classes.Match()
    found = match("bca", "abc")
    assert found.order == (2, 0, 1)  # output 2 is of class a
    assert "those of SET in another order" in found.text


def test_other_names_are_told():
    for theirs, ours, words in (
        ("xyz", "abc", r"NET knows other class names than SET has \(x for a\)"),
        (("a", "b2", "c"), "abc", r"\(b2 for b\)"),
        (("Ant", "bee"), ("ant", "bee"), r"\(Ant for ant, in other letters\)"),
        (("a b", "c"), ("ab", "c"), r"\(a b for ab, with other blanks\)"),
    ):
        found = match(theirs, ours)
        assert found.order is None
        assert re.search(words, found.text)


def test_neither_names_nor_places_decide():
    with pytest.raises(UserError, match="c is output 1 of the one and label 2 of the"):
        match("acd", "abc")
    with pytest.raises(UserError, match="b is output 2"):
        match("xyb", "abc")
