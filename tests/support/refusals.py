"""Errors of users, whose messages are one sentence each."""

import re

import pytest

from sws_jax.errors import UserError


def refusal(function, *arguments, **settings):
    """The message with which a function refuses its arguments."""
    with pytest.raises(UserError) as caught:
        function(*arguments, **settings)
    return sentence(str(caught.value))


def sentence(message):
    """A message, which must be one sentence on one line."""
    assert "\n" not in message, message
    assert not re.search(r"[.!?]\)* +[A-Z]", message), message
    return message
