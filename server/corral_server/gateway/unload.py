"""``ollama stop``: a request with nothing to generate and a keep_alive of exactly 0.

It is never queued and wakes nothing. It is told to every runner of the Model, past the slots, so that it does not wait
behind what is being generated; a Model without runners is unloaded already. The answer is the same, and immediate.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from corral_core.durations import keep_alive_from_request
from corral_core.errors import InvalidDuration
from corral_server.gateway.directory import Endpoint, Entry
from corral_server.gateway.pool import Pool
from corral_server.gateway.running import fetch
from corral_server.gateway.upstream import UpstreamError
from corral_server.wire.errors import ApiError
from corral_server.wire.show import timestamp

TIMEOUT = 5.0
"""Seconds that the runners have to take note."""

_CONTENT = {"/api/generate": "prompt", "/api/chat": "messages"}


def lone_keep_alive(path: str, data: Mapping[str, object]) -> object:
    """The keep_alive of a request with nothing to generate, None for any other."""
    content = _CONTENT.get(path)
    return None if content is None or data.get(content) else data.get("keep_alive")


def unloads(keep_alive: object) -> bool:
    """Whether a ``lone_keep_alive`` says so. Raises ApiError 400 for one that is no duration."""
    try:
        return keep_alive is not None and keep_alive_from_request(keep_alive) == 0
    except InvalidDuration as error:
        raise ApiError(400, str(error)) from None


async def unload(pool: Pool, entry: Entry, path: str, *, model: str, body: bytes) -> dict[str, object]:
    """Tells the Model's runners; gives the reply. ``model`` is the name as the client wrote it."""
    await asyncio.gather(*(_tell(pool, endpoint, path, body=body) for endpoint in entry.endpoints))
    said: dict[str, object] = {"model": model, "created_at": timestamp(time.time())}
    said |= {"response": ""} if path == "/api/generate" else {"message": {"role": "assistant", "content": ""}}
    return said | {"done": True, "done_reason": "unload"}


async def _tell(pool: Pool, endpoint: Endpoint, path: str, *, body: bytes) -> None:
    """A runner that cannot be reached is on its way out."""
    head = f"POST {path} HTTP/1.1\r\nhost: runner\r\ncontent-length: {len(body)}\r\n\r\n".encode("ascii")
    try:
        async with asyncio.timeout(TIMEOUT):
            await fetch(pool, endpoint, [head, body])
    except (UpstreamError, TimeoutError):
        return
