"""HTTP session of kopf's watches, which gives kopf responses with bounded nesting.

kopf decodes lists and lines of watches with Python's JSON reader, and a RecursionError there ends kopf. One object that
is nested too deep would end the operator, and again at each restart. A response of this session replaces the deep value
before kopf sees it (``corral_kube.bounded_json``), as the operator's own client does.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import aiohttp

from corral_kube.bounded_json import LineTooLong, bounded_line, decode, read_lines


class BoundedResponse(aiohttp.ClientResponse):
    """Response of the API server without values that are nested too deep."""

    async def start(self, connection: Any) -> BoundedResponse:  # the connection's type is not public
        await super().start(connection)
        self.content = cast("aiohttp.StreamReader", _BoundedLines(self.content))
        return self

    async def json(self, **_: object) -> Any:  # as in the base class
        payload = await self.read()
        return decode(payload)[0] if payload.strip() else None


class _BoundedLines:
    """The stream of a response. ``iter_chunked``, by which kopf reads a watch, yields whole lines."""

    def __init__(self, stream: aiohttp.StreamReader) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:  # every other method of the stream
        return getattr(self._stream, name)

    async def iter_chunked(self, _: int) -> AsyncIterator[bytes]:
        try:
            async for line in read_lines(self._stream):
                if line.strip():
                    yield bounded_line(line) + b"\n"
        except LineTooLong as error:
            raise aiohttp.ClientPayloadError(str(error)) from error  # kopf reconnects; the resync finds the change


def session(context: ssl.SSLContext, headers: Mapping[str, str]) -> aiohttp.ClientSession:
    """Open a session with these credentials; call it on kopf's event loop. kopf closes it."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=context),
        headers=headers,
        response_class=BoundedResponse,
    )
