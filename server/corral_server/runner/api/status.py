"""Endpoints for the operator, the gateway, the kubelet and Prometheus: status, probes, metrics, model info."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from corral_core.contracts.packed_defaults import with_source_defaults
from corral_core.contracts.runner_status import HEARTBEAT_INTERVAL, MIN_INTERVAL, RunnerStatus
from corral_server.runner.lifecycle.state import RunnerState
from corral_server.wire.json_encoding import compact_json

MAX_READINESS_WAIT = 30
"""Maximum number of seconds that a readiness request waits for the model."""

STALL_LIMIT = 300.0
"""Seconds without an engine step while work is pending, after which the liveness probe fails.

It is far longer than the longest step.
"""


class StatusEndpoints:
    """Read-only endpoints of one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def status(self, request: Request) -> Response:
        if request.query_params.get("watch") != "true":
            return JSONResponse(self._state.status().to_json(time.monotonic()))
        watch = self._state.watch(_interval(request.query_params.get("interval", "")))
        return StreamingResponse(_json_lines(watch), media_type="application/x-ndjson")

    async def health(self, _request: Request) -> Response:
        loaded = self._state.loaded
        if loaded is not None and loaded.engine.stalled_for > STALL_LIMIT:
            return PlainTextResponse(f"the engine has made no step for {STALL_LIMIT:.0f} s", 503)
        return PlainTextResponse("ok")

    async def ready(self, request: Request) -> Response:
        """Answer 200 when requests are accepted, otherwise 503.

        With ``?wait=SECONDS`` the response is delayed until the model is loaded, draining starts or the time is over.
        """
        wait = request.query_params.get("wait", "")
        if wait.isdecimal():
            await self._state.wait_until_loaded(min(int(wait), MAX_READINESS_WAIT))
        if self._state.draining:
            return PlainTextResponse(self._state.device_failure or "draining", 503)
        return PlainTextResponse("ok") if self._state.loaded else PlainTextResponse("loading", 503)

    async def metrics(self, request: Request) -> Response:
        from corral_server.runner.lifecycle.metrics import exposition  # late: a cold start does not need it

        body, content_type = exposition(self._state, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    async def info(self, _request: Request) -> Response:
        loaded = self._state.loaded
        if loaded is None:
            return PlainTextResponse("loading", 503)
        engine, metadata = loaded.engine, with_source_defaults(loaded.weights or loaded.metadata, loaded.defaults)
        body = {"metadata": metadata.to_json(), "parallel": engine.slots, "contextLength": engine.context_length}
        return JSONResponse(body)


def _interval(text: str) -> float:
    """Return the requested seconds between two lines, within the bounds of the contract."""
    seconds = float(text) if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", text) else HEARTBEAT_INTERVAL
    return min(max(seconds, MIN_INTERVAL), HEARTBEAT_INTERVAL)


async def _json_lines(watch: AsyncIterator[RunnerStatus]) -> AsyncIterator[bytes]:
    async for status in watch:
        yield compact_json(status.to_json(time.monotonic())).encode() + b"\n"
