"""Small requests to runners that need no slot: their status, an unload."""

from __future__ import annotations

from corral_server.gateway.directory.directory import Endpoint
from corral_server.gateway.upstream.pool import ConnectionPool

_RESPONSE_LIMIT = 64 * 1024


async def fetch(pool: ConnectionPool, endpoint: Endpoint, head: bytes, body: bytes = b"") -> tuple[int, bytes]:
    """Send a request; return status and body of the response, of which 64 KiB are kept.

    Raises UpstreamError. The caller bounds the time.
    """
    connection = await pool.acquire(endpoint.host, endpoint.port)
    try:
        connection.send(head, body)
        await connection.wait_for_head()
        content = await connection.read()
        while not connection.complete and len(content) <= _RESPONSE_LIMIT:
            content += await connection.read()
        content += connection.read_buffered()
    except BaseException:  # cancelled as well: a connection with half a response must not go back to the pool
        connection.abort()
        raise
    pool.release(endpoint.host, endpoint.port, connection)
    return connection.status, content
