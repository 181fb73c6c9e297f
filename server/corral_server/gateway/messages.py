"""One request as the gateway sees it, and the answers that it gives itself.

Names of headers are lower-case bytes, as ASGI has them. Nothing here reads a body.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from corral_server.wire.errors import error_body

if TYPE_CHECKING:
    from corral_server.gateway.bodies import Held
    from corral_server.gateway.front.exchange import Exchange

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON_TYPE = b"application/json; charset=utf-8"
TEXT_TYPE = b"text/plain; charset=utf-8"


class Request:
    """What handlers get.

    ``path`` is decoded; ``length`` is the Content-Length header, ``encoding`` Content-Encoding, ``connection`` all
    Connection headers; ``extra`` are headers that every answer to this request carries; ``exchange`` is there under the
    gateway's own server; ``model`` is the name that it asks for, once that is known; ``started`` is set once an answer
    has begun. ``body`` is there while it is needed, and ``held`` the room that it takes.
    """

    __slots__ = (
        "body",
        "connection",
        "encoding",
        "exchange",
        "extra",
        "headers",
        "held",
        "length",
        "method",
        "model",
        "path",
        "query",
        "receive",
        "send",
        "started",
    )

    def __init__(
        self,
        method: str,
        path: str,
        *,
        query: bytes,
        headers: Headers,
        receive: Receive,
        send: Send,
        exchange: Exchange | None,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.receive = receive
        self.send = send
        self.exchange = exchange
        self.extra: Headers = []
        self.length = b""
        self.connection = b""
        self.encoding = b""
        self.model = ""
        self.started = False
        self.body = b""
        self.held: Held | None = None

    def let_go(self) -> None:
        """The body is not needed any more."""
        self.body = b""
        if self.held is not None:
            self.held.free()

    def header(self, name: bytes) -> bytes:
        """The first value of this header, empty when there is none."""
        return next((value for key, value in self.headers if key == name), b"")

    def broke(self) -> None:
        """The answer that has begun ends too early."""
        if self.exchange is not None and self.exchange.record is not None:
            self.exchange.record.broken = True


def request_of(scope: Scope, receive: Receive, send: Send, *, prefix: str = "") -> Request:
    """The request of an ASGI call; for ``prefix`` see ``without``."""
    return Request(
        scope["method"],
        without(prefix, scope["path"]),
        query=scope["query_string"],
        headers=list(scope["headers"]),
        receive=receive,
        send=send,
        exchange=scope.get("corral.exchange"),
    )


def without(prefix: str, path: str) -> str:
    """The path less the prefix, where it is there; that has a "/" at its begin and none at its end, or is empty."""
    if prefix and f"{path}/".startswith(f"{prefix}/"):
        return path[len(prefix) :] or "/"
    return path


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    status: int
    body: bytes = b""
    content_type: bytes | None = JSON_TYPE
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json_answer(value: object, *, status: int = 200) -> Answer:
    return Answer(status, to_json(value))


def to_json(value: object) -> bytes:
    """Compact UTF-8 JSON; lone surrogates, which UTF-8 cannot carry, come out as ``?``."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def error_answer(path: str, status: int, message: str, *, retry_after: int | None = None) -> Answer:
    """An error in the wire format of ``path``; ``retry_after`` is in seconds."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if retry_after is not None:
        headers = ((b"retry-after", b"%d" % retry_after),)
    elif status == 401:
        headers = ((b"www-authenticate", b"Bearer"),)
    return Answer(status, error_body(path, status, message), JSON_TYPE, headers)


async def send_answer(request: Request, answer: Answer) -> None:
    """Writes the answer; for HEAD the server leaves the body away and keeps its length."""
    request.started = True
    headers: Headers = [(b"date", formatdate(usegmt=True).encode()), *answer.headers, *request.extra]
    if answer.content_type is not None and (answer.body or answer.status == 200):
        headers.append((b"content-type", answer.content_type))
    if answer.status != 204:
        headers.append((b"content-length", b"%d" % len(answer.body)))
    await request.send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await request.send({"type": "http.response.body", "body": answer.body, "more_body": False})
