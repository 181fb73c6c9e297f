"""States of a client connection and of one request and its response on it.

The names follow h11 (https://h11.readthedocs.io/en/latest/api.html#the-state-machine). The connection only moves
forward:

    OPEN            requests are read and answered
     │              ``Connection: close``, an ignored upgrade, a draining server
    LAST_EXCHANGE   the request under way is the last one; its body is still read
     │              invalid input, the client's half-close, a request after the last one
    DISCARDING      input is discarded; the response under way is still sent
     │              the last byte was sent before the client had sent its whole request
    LINGERING       the sending side is shut down; input is discarded until the client closes
     │
    CLOSED          the transport is closing or gone

A request goes ``HEAD -> BODY -> COMPLETE``. A response goes ``IDLE -> SEND_BODY -> DONE``; it becomes ``ABORTED`` from
one of the first two when the client disconnects, or when the connection ends with an error of its own.
"""

from __future__ import annotations

import enum
from typing import Final


class ConnectionState(enum.IntEnum):
    OPEN = 0
    LAST_EXCHANGE = 1
    DISCARDING = 2
    LINGERING = 3
    CLOSED = 4


class RequestState(enum.Enum):
    HEAD = "head"
    BODY = "body"
    COMPLETE = "complete"


class ResponseState(enum.Enum):
    IDLE = "idle"
    SEND_BODY = "send body"
    DONE = "done"
    ABORTED = "aborted"


# Module constants: looking up a member of an Enum class costs several times as much, for every chunk of every stream.
HEAD: Final = RequestState.HEAD
BODY: Final = RequestState.BODY
COMPLETE: Final = RequestState.COMPLETE
IDLE: Final = ResponseState.IDLE
SEND_BODY: Final = ResponseState.SEND_BODY
DONE: Final = ResponseState.DONE
ABORTED: Final = ResponseState.ABORTED
