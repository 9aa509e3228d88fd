"""The one exception that is meant for people."""


class UserError(ValueError):
    """Something the user asked for cannot be done.

    The message is one sentence: what was wrong, with its numbers, and what to
    do. Commands print it without a traceback; notebooks see a ``ValueError``.
    """


class Stopped(UserError):
    """What was asked for could be done, and something on the way stopped it."""
