"""Heartbeats of a stream whose runner has not begun it: while the request is queued, and until the first token.

Proxies and load balancers close a connection on which nothing arrives for a time, often 60 seconds, and a cold start
can take longer.

- They begin after one interval. Until then an error is a response with its own status; afterwards the status 200 was
  sent, and an error is the last event or line of the stream.
- The request is queued and sent again as without them: they are no part of the runner's response.
- Server-sent events: a comment, which every client ignores (HTML Living Standard, section 9.2.6). Anthropic's API has
  an event for it: https://docs.anthropic.com/en/api/messages-streaming#ping-events
- JSON lines have no comments. The head of the response is sent after the first interval, and nothing more.
- Metrics and access log have the status of the error, and the time to the first token without heartbeats.
"""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from typing import Final

from corral_server.gateway.messages import Request
from corral_server.wire.errors import RUNNER_STOPPED, ApiError, stream_error, stream_item
from corral_server.wire.event_stream import EVENT_STREAM

COMMENT: Final = b": waiting for the model\n\n"
PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'
_PING_PATH: Final = "/v1/messages"


class Heartbeat:
    """Heartbeats of one request, every ``interval`` seconds, until ``stop``."""

    __slots__ = ("_interval", "_request", "_timer")

    def __init__(self, request: Request, interval: float) -> None:
        self._request = request
        self._interval = interval
        self._timer: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(interval, self._beat)

    def stop(self) -> None:
        """Send no more of them. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self) -> None:
        request, exchange = self._request, self._request.exchange
        if exchange.closed:
            return
        if not request.only_heartbeats:
            request.only_heartbeats = True
            date = (b"date", formatdate(usegmt=True).encode())
            exchange.start_response(200, [date, (b"content-type", request.stream_type), *request.response_headers])
        if request.stream_type != EVENT_STREAM:
            exchange.write_heartbeat(b"")
            return
        exchange.write_heartbeat(PING if request.path == _PING_PATH else COMMENT)
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._beat)


def end_with_error(request: Request, error: ApiError) -> None:
    """End a response that holds only heartbeats with an error."""
    _end(request, error.status, stream_error(request.path, error.message, error.status))


def end_with_body(request: Request, status: int, body: bytes) -> None:
    """End a response that holds only heartbeats with a runner's response that is no stream, such as an error."""
    text = body.decode("utf-8", "replace").strip()
    if text.startswith("{"):
        text = text.replace("\r", " ").replace("\n", " ")  # in JSON they are white space between values
        _end(request, status, stream_item(request.path, text, error=status >= 400))
    else:
        end_with_error(request, ApiError(status if status >= 400 else 500, RUNNER_STOPPED))


def _end(request: Request, status: int, last: bytes) -> None:
    request.only_heartbeats = False
    if request.metrics is not None and not request.exchange.closed:
        request.metrics.status = status
    request.exchange.write(last, last=True)
