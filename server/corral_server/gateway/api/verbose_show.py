"""Verbose ``/api/show``: arrays and tensors of the weights, which only a runner can read.

The request goes to a ready runner without taking one of its slots, and the response is relayed. It loads no model:
without a ready runner, or when none responds in time, the caller answers from the stored metadata, as for any other
show request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from corral_server.gateway.api.forwarded import SHOW
from corral_server.gateway.directory.directory import Endpoint, ModelEntry
from corral_server.gateway.http_server.exchange import DisconnectScope
from corral_server.gateway.messages import Request
from corral_server.gateway.proxy.read_pacing import ReadPacing
from corral_server.gateway.proxy.relay import relay
from corral_server.gateway.upstream.connection import RunnerConnection, UpstreamError
from corral_server.gateway.upstream.pool import ConnectionPool
from corral_server.wire.errors import ApiError
from corral_server.wire.go_json import json_kind
from corral_server.wire.headers import MODIFIED

TIMEOUT = 20.0
"""Seconds until a runner begins to respond: a vocabulary of 250,000 tokens takes one second on a slow machine."""


def wants_verbose(data: Mapping[str, object]) -> bool:
    """Return the request's ``verbose``. Raises ApiError 400 when it is not a boolean."""
    value = data.get("verbose")
    if value is None or isinstance(value, bool):
        return value is True
    what = json_kind(value)
    raise ApiError(400, f"json: cannot unmarshal {what} into Go struct field {SHOW.kind}.verbose of type bool")


async def verbose_show(pool: ConnectionPool, entry: ModelEntry, request: Request) -> bool:
    """Relay the response of the first runner that answers the client's request; return False when none does.

    It may take many megabytes, so it is relayed in pieces. Raises ApiError.
    """
    body = request.body
    head = b"POST /api/show HTTP/1.1\r\nhost: runner\r\ncontent-length: %d\r\n%b: %.6f\r\nuser-agent: %b\r\n\r\n" % (
        len(body),
        MODIFIED,
        entry.modified,
        request.header(b"user-agent"),
    )
    for endpoint in entry.endpoints:
        connection = await _open_response(pool, endpoint, head, body=body)
        if connection is not None:
            try:
                with DisconnectScope(request.exchange):
                    await relay(request, connection, ReadPacing())
            finally:
                pool.release(endpoint.host, endpoint.port, connection)
            return True
    return False


async def _open_response(
    pool: ConnectionPool, endpoint: Endpoint, head: bytes, *, body: bytes
) -> RunnerConnection | None:
    """Return a connection on which a response with status 200 begins, None without one."""
    try:
        async with asyncio.timeout(TIMEOUT):
            connection = await pool.acquire(endpoint.host, endpoint.port)
            try:
                connection.send(head, body)
                await connection.wait_for_head()
            except BaseException:  # cancelled as well: a connection with half a response must not go back to the pool
                connection.abort()
                raise
    except (UpstreamError, TimeoutError):
        return None
    if connection.status == 200:
        return connection
    connection.abort()
    return None
