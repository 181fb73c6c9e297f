"""``ollama stop``: a request without content and with a keep_alive of exactly 0, which unloads the model.

The request is not queued and loads no model. It is sent to every runner of the Model without taking a slot, so that it
does not wait for running generations. A Model without runners gets the same response.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from corral_core.base.durations import keep_alive_from_json
from corral_core.base.errors import InvalidDuration
from corral_server.gateway.directory.directory import Endpoint, ModelEntry
from corral_server.gateway.upstream.connection import UpstreamError
from corral_server.gateway.upstream.fetch import fetch
from corral_server.gateway.upstream.pool import ConnectionPool
from corral_server.wire.errors import ApiError
from corral_server.wire.headers import identity_line
from corral_server.wire.show import timestamp

TIMEOUT = 5.0
"""Seconds for the runners to respond."""

_CONTENT = {"/api/generate": "prompt", "/api/chat": "messages"}


def keep_alive_without_content(path: str, data: Mapping[str, object]) -> object:
    """Return the keep_alive of a request without a prompt or messages, None for any other request."""
    content = _CONTENT.get(path)
    return None if content is None or data.get(content) else data.get("keep_alive")


def is_unload(keep_alive: object) -> bool:
    """Return whether a result of ``keep_alive_without_content`` is 0. Raises ApiError 400 for an invalid duration."""
    try:
        return keep_alive is not None and keep_alive_from_json(keep_alive) == 0
    except InvalidDuration as error:
        raise ApiError(400, str(error)) from None


async def unload(pool: ConnectionPool, entry: ModelEntry, path: str, *, model: str, body: bytes) -> dict[str, object]:
    """Unload the Model's runners and return the response. ``model`` is the name as the client wrote it."""
    await asyncio.gather(*(_unload_runner(pool, endpoint, path, body=body) for endpoint in entry.endpoints))
    reply: dict[str, object] = {"model": model, "created_at": timestamp(time.time())}
    reply |= {"response": ""} if path == "/api/generate" else {"message": {"role": "assistant", "content": ""}}
    return reply | {"done": True, "done_reason": "unload"}


async def _unload_runner(pool: ConnectionPool, endpoint: Endpoint, path: str, *, body: bytes) -> None:
    """Send the request to one runner. Errors are ignored: an unreachable runner is terminating, or not the Model's."""
    head = b"POST %b HTTP/1.1\r\nhost: runner\r\n" % path.encode("ascii")
    head += b"%bcontent-length: %d\r\n\r\n" % (identity_line(endpoint.model), len(body))
    try:
        async with asyncio.timeout(TIMEOUT):
            await fetch(pool, endpoint, head, body)
    except (UpstreamError, TimeoutError):
        return
