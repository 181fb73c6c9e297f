"""How a call to the API server fails.

KubeError
├── Unreachable   no answer, a stream that broke, or the server's own trouble: it may be there again soon
└── Refused       an answer that is no success
    ├── Forbidden 403
    ├── NotFound  404
    ├── Conflict  409: somebody else was first
    └── Expired   410: a watch cannot go on from where it was
"""

from __future__ import annotations

from corral_core.errors import CorralError


class KubeError(CorralError):
    """A call to the API server that failed."""


class Unreachable(KubeError):
    """No answer; it may be there again soon."""


class Refused(KubeError):
    """The API server said no; the text is its reason."""


class Forbidden(Refused):
    """These credentials may not do that."""


class NotFound(Refused):
    """The object, or its kind, does not exist."""


class Conflict(Refused):
    """The object was changed by somebody else, or exists already."""


class Expired(Refused):
    """The version is too old to go on from: list anew."""


def failure(status: int, message: str) -> KubeError:
    """The error for an HTTP status that is no success."""
    special = {403: Forbidden, 404: NotFound, 409: Conflict, 410: Expired}.get(status)
    if special is not None:
        return special(message)
    return Unreachable(message) if status >= 500 or status == 429 else Refused(message)
