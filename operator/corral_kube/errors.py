"""Errors of calls to the API server.

KubeError
├── WriteNotAllowed        a client with a fence may not write any more; nothing was sent
├── APIServerUnreachable   no response, a broken stream, or a temporary server error (429, 5xx)
└── APIRequestRejected     any other response without success
    ├── Forbidden          403
    ├── NotFound           404
    ├── Conflict           409
    └── Expired            410: a watch cannot continue from its resource version
"""

from __future__ import annotations

from corral_core.base.errors import CorralError

_REFUSALS_WITH_500 = ("failed to create typed patch object", "failed calling webhook", "request is too large")
"""Parts of messages for an object that the API server does not take, with a status for errors of its own: server-side
apply of a field that the schema lacks, an admission webhook that does not respond, and the limit of etcd."""


class KubeError(CorralError):
    """A call to the API server that failed.

    ``server_message`` is its own message and ``status`` the HTTP status, empty and 0 without a response.
    """

    server_message = ""
    status = 0


class WriteNotAllowed(KubeError):
    """The time in which the client may write is over."""


class APIServerUnreachable(KubeError):
    """No response or a temporary server error; a retry may succeed."""


class APIRequestRejected(KubeError):
    """The API server rejected the request; the text is its message."""


class Forbidden(APIRequestRejected):
    """The credentials lack the permission."""


class NotFound(APIRequestRejected):
    """The object, or its kind, does not exist."""


class Conflict(APIRequestRejected):
    """The object was changed concurrently, or exists already."""


class Expired(APIRequestRejected):
    """The resource version is too old to continue a watch; list again."""


def error_from_status(status: int, message: str, *, server_message: str = "") -> KubeError:
    """Build the error for an HTTP status without success."""
    kinds: dict[int, type[KubeError]] = {403: Forbidden, 404: NotFound, 409: Conflict, 410: Expired}
    temporary = status >= 500 or status == 429
    error = kinds.get(status, APIServerUnreachable if temporary else APIRequestRejected)(message)
    error.server_message, error.status = server_message, status
    return error


def refusal(error: KubeError) -> str | None:
    """Return the API server's message if it refuses the written object as it is; None for other errors."""
    if isinstance(error, (NotFound, Conflict, Expired)):
        return None
    message = error.server_message or str(error)
    refused = isinstance(error, APIRequestRejected) or any(part in message for part in _REFUSALS_WITH_500)
    return message if refused else None
