"""Why a bucket is not read or written: the errors of its libraries, in one sentence."""

from __future__ import annotations

import contextlib
import enum
import errno

from sws_jax import arguments
from sws_jax.errors import UserError

GOOGLE = "gs"  # the scheme of Google Cloud Storage
_NETWORK_LIBRARIES = ("aiohttp", "requests", "urllib3", "socket", "ssl")
_NETWORK_ERRNOS = (
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EADDRNOTAVAIL,
)


class Unreachable(OSError):
    """A bucket does not answer, for now."""


class Cause(enum.Enum):
    """Why a storage library failed."""

    AWAY = "the network, or a service that is busy: another try may do"
    RIGHTS = "rights are missing"
    REFUSED = "the service takes no such request"


def bucket(path: str) -> str:
    """``gs://bucket`` of ``gs://bucket/runs/a``."""
    scheme, _, rest = path.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def explained(path: str, error: Exception) -> Exception:
    """An error of a storage library, in one sentence.

    Returns:
      `Unreachable` where another try may do, `UserError` where rights are missing or
      the bucket refuses what is asked, else the error itself: of this machine's disk,
      or not expected.
    """
    cause = verdict(error)
    text = str(error)
    reason = (text.strip().splitlines() or [type(error).__name__])[-1][:160]
    if cause is Cause.AWAY:
        return Unreachable(f"{path} cannot be reached ({reason})")
    if cause is Cause.RIGHTS:
        remedy = (
            f"see to this machine's credentials, and to its rights on {bucket(path)}"
        )
        if arguments.scheme(path) == GOOGLE:
            remedy = (
                f"run gcloud auth application-default login, or give this machine's "
                f"service account the role Storage Admin on {bucket(path)}"
            )
        return UserError(
            f"{path} may not be read or written from here ({reason}): {remedy}"
        )
    if cause is Cause.REFUSED:
        return UserError(
            f"{path} is refused by its storage ({reason}): see to the name and the "
            f"settings of {bucket(path)}"
        )
    return error


def verdict(error: BaseException) -> Cause | None:
    """The cause of a storage library's error, where it is known."""
    # The innermost is right: libraries report a service of rights that could not be
    # reached as rights that were refused.
    for inner in reversed(_chain(error)):
        if (cause := _verdict(inner)) is not None:
            return cause
    return None


def _chain(error: BaseException) -> list[BaseException]:
    """An error, and those that are named as its causes."""
    chain: list[BaseException] = []
    inner: BaseException | None = error
    while inner is not None and inner not in chain:
        chain.append(inner)
        wrapped = [arg for arg in inner.args if isinstance(arg, Exception)]
        inner = inner.__cause__ or next(iter(wrapped), None)
    return chain


def _verdict(error: BaseException) -> Cause | None:
    """The cause of one error alone, by its HTTP status, its library and its type."""
    library, status = type(error).__module__.partition(".")[0], _status(error)
    name = type(error).__name__
    if status in (408, 429) or status >= 500:
        return Cause.AWAY
    if status in (401, 403) or str(error).startswith("Forbidden"):
        return Cause.RIGHTS
    if type(error).__module__.startswith("google.auth"):
        unanswered = name == "TransportError" and not status
        retryable = unanswered or getattr(error, "retryable", False)
        return Cause.AWAY if retryable else Cause.RIGHTS
    if status:
        return Cause.REFUSED
    if library == "botocore":
        return Cause.RIGHTS if "Credentials" in name else Cause.AWAY
    if library in _NETWORK_LIBRARIES or name in ("RetryError", "ChecksumError"):
        return Cause.AWAY
    if isinstance(error, ConnectionError | TimeoutError):
        return Cause.AWAY
    if isinstance(error, OSError) and error.errno in _NETWORK_ERRNOS:
        return Cause.AWAY
    if isinstance(error, ValueError) and not isinstance(error, UserError):
        return Cause.REFUSED  # which gcsfs raises for wrong names and settings
    return None


def _status(error: BaseException) -> int:
    """The HTTP status of an error; 0 where it has none."""
    response = getattr(error, "response", None)
    candidates = [
        getattr(error, "code", None),
        getattr(error, "status", None),
        getattr(response, "status_code", None),
        *(getattr(arg, "status", None) for arg in error.args),
    ]
    for value in candidates:
        with contextlib.suppress(TypeError, ValueError):
            if 400 <= int(value) < 600:  # type: ignore[arg-type]
                return int(value)  # type: ignore[arg-type]
    return 0
