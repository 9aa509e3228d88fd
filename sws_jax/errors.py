"""The one exception that is meant for people."""

import re

# Line ends, other control characters and halves of characters: what a file or a
# command line says is quoted, and cannot break a sentence or a terminal.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class UserError(ValueError):
    """Something the user asked for cannot be done.

    The message is one sentence on one line: what was wrong, with its numbers, and
    what to do. Commands print it without a traceback; notebooks see a ``ValueError``.
    """

    def __init__(self, message: str):
        super().__init__(_UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], message))


class Stopped(UserError):
    """What was asked for could be done, and something on the way stopped it."""


class Interrupted(Stopped):
    """It was stopped by something that may be over when it is asked for again."""
