"""Relays a runner's response to the client.

- The response starts when its first bytes have arrived, and a response that is not a stream is held until it is
  complete, up to ``HOLD_LIMIT``: a runner that fails early still becomes a proper error.
- A stream is forwarded in whole lines or events as they arrive. When it breaks off or is interrupted, its last line is
  an error.
- Back-pressure: nothing is read from the runner while the client reads too slowly, beyond the connection's buffer.
"""

from __future__ import annotations

import asyncio

from corral_server.gateway.messages import Request
from corral_server.gateway.proxy.headers import response_headers
from corral_server.gateway.proxy.heartbeat import end_with_body
from corral_server.gateway.proxy.line_buffer import LineBuffer
from corral_server.gateway.proxy.read_pacing import ReadPacing
from corral_server.gateway.upstream.connection import Interrupted, RunnerConnection, UpstreamError
from corral_server.wire.errors import RUNNER_STOPPED, ApiError

HOLD_LIMIT = 1024 * 1024
"""Bytes of a response that is not a stream which are held until it is complete."""
SHUTTING_DOWN = "the gateway is shutting down, please try again"
STREAM_BROKE = "an error was encountered while running the model: unexpected EOF"


def relay_complete(request: Request, connection: RunnerConnection) -> bool:
    """Relay a response that has arrived as a whole to a client that reads; return whether it was one."""
    exchange = request.exchange
    if not connection.complete or exchange.write_paused:
        return False
    headers, _ = response_headers(connection, request.response_headers)
    exchange.start_response(connection.status, headers)
    exchange.write(connection.read_buffered(), last=True)
    return True


async def relay(request: Request, connection: RunnerConnection, pacing: ReadPacing) -> None:
    """Relay the whole response, whose head has arrived. Raises ApiError while nothing was sent to the client.

    On cancellation, which means that the gateway shuts down, a stream ends with an error.
    """
    headers, delimiter = response_headers(connection, request.response_headers)
    exchange = request.exchange
    if exchange.write_paused:
        await exchange.drain()
    if delimiter is None:
        body = connection.read_buffered() if connection.complete else await _hold(connection)
        exchange.start_response(connection.status, headers)
        if connection.complete:
            exchange.write(body + connection.read_buffered(), last=True)
        else:
            await _relay_rest(request, connection, body)
    else:
        exchange.start_response(connection.status, headers)
        await _relay_stream(request, connection, LineBuffer(delimiter), pacing=pacing)


async def relay_after_heartbeats(request: Request, connection: RunnerConnection, pacing: ReadPacing) -> None:
    """Relay the response behind the heartbeats. Raises ApiError while nothing of it was sent to the client."""
    _, delimiter = response_headers(connection, [])
    if request.exchange.write_paused:
        await request.exchange.drain()
    if delimiter is not None:
        request.only_heartbeats = False
        await _relay_stream(request, connection, LineBuffer(delimiter), pacing=pacing)
        return
    body = await _hold(connection)
    if not connection.complete:
        connection.abort()
        raise ApiError(500, RUNNER_STOPPED)
    end_with_body(request, connection.status, body + connection.read_buffered())


async def _hold(connection: RunnerConnection) -> bytes:
    """Return the body up to ``HOLD_LIMIT``. Raises ApiError when it breaks off before."""
    pieces = [connection.read_buffered()]
    size = len(pieces[0])
    try:
        while not connection.complete and size <= HOLD_LIMIT:
            pieces.append(await connection.read())
            size += len(pieces[-1])
    except UpstreamError as error:
        if isinstance(error, Interrupted):
            raise ApiError(503, str(error), retry_after=1) from None
        raise ApiError(500, RUNNER_STOPPED) from None
    return b"".join(pieces)


async def _relay_rest(request: Request, connection: RunnerConnection, body: bytes) -> None:
    """Send what was held, then the rest of a response that is too large to hold.

    When it breaks off, the response stays incomplete and the server closes the connection.
    """
    exchange = request.exchange
    while not connection.complete:
        exchange.write(body)
        await exchange.drain()
        try:
            body = await connection.read()
        except UpstreamError:
            request.mark_incomplete()
            return
    exchange.write(body + connection.read_buffered(), last=True)


async def _relay_stream(
    request: Request, connection: RunnerConnection, lines: LineBuffer, *, pacing: ReadPacing
) -> None:
    exchange = request.exchange
    piece = connection.read_buffered()
    try:
        while not connection.complete:
            whole = lines.feed(piece)
            if whole:
                exchange.write(whole)
                pacing.piece_written(connection)
                if exchange.write_paused:
                    await exchange.drain()
            piece = await connection.read()
        exchange.write(lines.flush(piece + connection.read_buffered()), last=True)
    except UpstreamError as error:
        request.mark_incomplete()
        text = str(error) if isinstance(error, Interrupted) else STREAM_BROKE
        exchange.write(lines.error(request.path, text), last=True)
    except asyncio.CancelledError:
        request.mark_incomplete()
        exchange.write(lines.error(request.path, SHUTTING_DOWN), last=True)
        raise
