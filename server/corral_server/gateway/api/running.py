"""/api/ps: the loaded Models, from the status of their runners.

The status of all runners is requested concurrently with a timeout of ``TIMEOUT`` seconds. A runner that does not
respond, sends something else than a valid status or is still loading is omitted, as Ollama omits a loading model.
"""

from __future__ import annotations

import asyncio
import time

from corral_core.base.durations import FOREVER
from corral_core.contracts.runner_status import RunnerStatus, parse_runner_status
from corral_server.gateway.directory.directory import Directory, Endpoint, ModelEntry
from corral_server.gateway.upstream.connection import UpstreamError
from corral_server.gateway.upstream.fetch import fetch
from corral_server.gateway.upstream.pool import ConnectionPool
from corral_server.wire.headers import identity_line
from corral_server.wire.show import details, timestamp

TIMEOUT = 1.0
FOREVER_AHEAD = 292 * 365.25 * 86400
"""Seconds; clients print an expiry this far ahead as "Forever"."""


async def loaded_models(directory: Directory, pool: ConnectionPool) -> dict[str, object]:
    """Return the loaded models, the latest expiry first."""
    runners = [(entry, endpoint) for entry in directory.entries() for endpoint in entry.endpoints]
    found = await asyncio.gather(*(_runner_status(pool, endpoint) for _, endpoint in runners))
    by_model: dict[str, tuple[ModelEntry, list[RunnerStatus]]] = {}
    for (entry, _), status in zip(runners, found, strict=True):
        if status is not None and status.loaded:
            by_model.setdefault(entry.key, (entry, []))[1].append(status)
    now = time.time()
    models = [(max(_expiry(status, now) for status in group), entry, group) for entry, group in by_model.values()]
    models.sort(key=lambda item: item[0], reverse=True)
    return {"models": [_model(expires, entry, group) for expires, entry, group in models]}


def _model(expires: float, entry: ModelEntry, group: list[RunnerStatus]) -> dict[str, object]:
    """Return the object of a Model, with the memory of all of its runners."""
    return {
        "name": entry.names[0],
        "model": entry.names[0],
        "size": sum(status.size_bytes for status in group),
        "digest": entry.digest,
        "details": details(entry.metadata),
        "expires_at": timestamp(expires),
        "size_vram": sum(map(_size_vram, group)),
        "context_length": max(status.context_length for status in group),
    }


def _size_vram(status: RunnerStatus) -> int:
    """Return the GPU memory; with all layers on GPUs the buffers in host memory count as well.

    Ollama does the same, so that its command shows "100% GPU" (``VRAMSize`` in Ollama's ``llm/server.go``).
    """
    offload = status.offload
    complete = offload is not None and 0 < offload.total_layers <= offload.layers and not offload.reason
    return status.size_bytes if complete else status.vram_bytes


def _expiry(status: RunnerStatus, now: float) -> float:
    """Return the expiry without further requests. For a busy runner keep_alive counts from now."""
    if status.keep_alive == FOREVER:
        return now + FOREVER_AHEAD
    if status.expires_at is not None:
        return status.expires_at
    return now + min(status.keep_alive, FOREVER_AHEAD)


async def _runner_status(pool: ConnectionPool, endpoint: Endpoint) -> RunnerStatus | None:
    """Return the status with times of this process's clock; None without a valid one."""
    head = b"GET /activity HTTP/1.1\r\nhost: runner\r\n%b\r\n" % identity_line(endpoint.model)
    try:
        async with asyncio.timeout(TIMEOUT):
            code, body = await fetch(pool, endpoint, head)
        return parse_runner_status(body, time.time()) if code == 200 else None
    except (UpstreamError, TimeoutError, ValueError):
        return None
