"""A verbose ``/api/show``: the arrays and tensors of the weights, which only a runner has at hand.

A ready runner is asked, past its slots, and its answer goes on as it comes. None is woken: without one, or where none
answers in time, the caller answers from what is stored, as it does for every other show.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from corral_server.gateway.apis import SHOW
from corral_server.gateway.body import go_kind
from corral_server.gateway.departure import Departure
from corral_server.gateway.directory import Endpoint, Entry
from corral_server.gateway.messages import Request
from corral_server.gateway.pacing import Pacing
from corral_server.gateway.pool import Pool
from corral_server.gateway.relay import relay
from corral_server.gateway.upstream import Connection, UpstreamError
from corral_server.wire.errors import ApiError
from corral_server.wire.headers import MODIFIED

TIMEOUT = 20.0
"""Seconds until one runner begins to answer: a vocabulary of 250,000 tokens takes one on a slow machine."""


def wants_verbose(data: Mapping[str, object]) -> bool:
    """Raises ApiError 400 for another value than a boolean."""
    value = data.get("verbose")
    if value is None or isinstance(value, bool):
        return value is True
    what = go_kind(value)
    raise ApiError(400, f"json: cannot unmarshal {what} into Go struct field {SHOW.kind}.verbose of type bool")


async def verbose_show(pool: Pool, entry: Entry, request: Request, *, body: bytes) -> bool:
    """Passes the answer on of the first runner that gives one to the client's ``body``; False when none does.

    It may be many megabytes: it goes on in pieces, as the client takes them. Raises ApiError.
    """
    head = (
        b"POST /api/show HTTP/1.1\r\nhost: runner\r\ncontent-length: %d\r\n" % len(body),
        b"%b: %.6f\r\nuser-agent: %b\r\n\r\n" % (MODIFIED, entry.modified, request.header(b"user-agent")),
    )
    for endpoint in entry.endpoints:
        connection = await _ask(pool, endpoint, [*head, body])
        if connection is not None:
            try:
                with Departure(request.receive, request.exchange):
                    await relay(request, connection, _nothing, pacing=Pacing())
            finally:
                pool.put(endpoint.host, endpoint.port, connection)
            return True
    return False


async def _ask(pool: Pool, endpoint: Endpoint, message: list[bytes]) -> Connection | None:
    """A connection on which a good answer begins."""
    try:
        async with asyncio.timeout(TIMEOUT):
            connection = await pool.get(endpoint.host, endpoint.port)
            try:
                connection.send(message)
                await connection.head()
            except BaseException:  # cancelled as well: half an answer must not go back to the pool
                connection.abort()
                raise
    except (UpstreamError, TimeoutError):
        return None
    if connection.status == 200:
        return connection
    connection.abort()
    return None


def _nothing() -> None:
    """No slot is to be given back."""
