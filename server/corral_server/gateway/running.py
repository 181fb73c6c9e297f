"""/api/ps: which Models are loaded, asked of the runners themselves.

Every runner is asked at the same time and has ``TIMEOUT`` seconds; one that does not answer, or is still loading, is
absent, as a loading model is with Ollama.
"""

from __future__ import annotations

import asyncio
import json
import time

from corral_core.activity import FOREVER, Activity
from corral_server.gateway.directory import Directory, Endpoint, Entry
from corral_server.gateway.pool import Pool
from corral_server.gateway.upstream import UpstreamError
from corral_server.wire.show import details, timestamp

TIMEOUT = 1.0
FOREVER_AHEAD = 292 * 365.25 * 86400
"""Seconds: clients print an expiry this far away as "Forever"."""
_ANSWER_LIMIT = 64 * 1024


async def running(directory: Directory, pool: Pool) -> dict[str, object]:
    """The models that are loaded, the one that stays longest first."""
    asked = [(entry, endpoint) for entry in directory.entries() for endpoint in entry.endpoints]
    found = await asyncio.gather(*(_activity(pool, endpoint) for _, endpoint in asked))
    by_model: dict[str, tuple[Entry, list[Activity]]] = {}
    for (entry, _), activity in zip(asked, found, strict=True):
        if activity is not None and activity.loaded:
            by_model.setdefault(entry.key, (entry, []))[1].append(activity)
    now = time.time()
    lines = [(max(_expiry(activity, now) for activity in group), entry, group) for entry, group in by_model.values()]
    lines.sort(key=lambda line: line[0], reverse=True)
    return {"models": [_line(expires, entry, group) for expires, entry, group in lines]}


def _line(expires: float, entry: Entry, group: list[Activity]) -> dict[str, object]:
    """One Model; the memory of all its runners together."""
    return {
        "name": entry.names[0],
        "model": entry.names[0],
        "size": sum(activity.size_bytes for activity in group),
        "digest": entry.digest,
        "details": details(entry.facts),
        "expires_at": timestamp(expires),
        "size_vram": sum(activity.vram_bytes for activity in group),
        "context_length": max(activity.context_length for activity in group),
    }


def _expiry(activity: Activity, now: float) -> float:
    """When it will be unloaded if nobody uses it any more; a busy one begins to count when it is idle."""
    if activity.keep_alive == FOREVER:
        return now + FOREVER_AHEAD
    if activity.expires_at is not None:
        return activity.expires_at
    return now + min(activity.keep_alive, FOREVER_AHEAD)


async def _activity(pool: Pool, endpoint: Endpoint) -> Activity | None:
    try:
        async with asyncio.timeout(TIMEOUT):
            status, body = await fetch(pool, endpoint, [b"GET /activity HTTP/1.1\r\nhost: runner\r\n\r\n"])
        if status != 200:
            return None
        value = json.loads(body)
        return Activity.from_json(value) if isinstance(value, dict) else None
    except (UpstreamError, TimeoutError, ValueError):
        return None


async def fetch(pool: Pool, endpoint: Endpoint, message: list[bytes]) -> tuple[int, bytes]:
    """Sends a whole request, gives status and body of the answer. Raises UpstreamError; the caller bounds the time."""
    connection = await pool.get(endpoint.host, endpoint.port)
    try:
        connection.send(message)
        await connection.head()
        body = await connection.read()
        while not connection.complete and len(body) <= _ANSWER_LIMIT:
            body += await connection.read()
    except BaseException:  # cancelled as well: half an answer must not go back to the pool
        connection.abort()
        raise
    body += connection.take()
    pool.put(endpoint.host, endpoint.port, connection)
    return connection.status, body
