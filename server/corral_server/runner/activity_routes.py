"""What the cluster asks a runner: its activity, whether it lives and is ready, and what it has loaded."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from corral_core.activity import Activity
from corral_core.metrics import CONTENT_TYPE
from corral_server.runner.metrics import exposition
from corral_server.runner.state import RunnerState

LONGEST_WAIT = 30
"""Seconds for which a question whether the runner is ready is kept at most."""

STALL_LIMIT = 300.0
"""Seconds without a step while there is work, after which the engine counts as dead: far beyond the longest step."""


class ActivityRoutes:
    """Read-only endpoints over one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def activity(self, request: Request) -> Response:
        if request.query_params.get("watch") != "true":
            return JSONResponse(self._state.activity().to_json())
        return StreamingResponse(_lines(self._state.watch()), media_type="application/x-ndjson")

    async def health(self, _request: Request) -> Response:
        loaded = self._state.loaded
        if loaded is not None and loaded.engine.stalled_for > STALL_LIMIT:
            return PlainTextResponse("the engine makes no progress", 503)
        return PlainTextResponse("ok")

    async def ready(self, request: Request) -> Response:
        """With ``?wait=SECONDS`` the answer comes as soon as there is good news, and then at the latest."""
        wait = request.query_params.get("wait", "")
        if wait.isdecimal():
            await self._state.settled(min(int(wait), LONGEST_WAIT))
        if self._state.draining:
            return PlainTextResponse("draining", 503)
        return PlainTextResponse("ok") if self._state.loaded else PlainTextResponse("loading", 503)

    async def metrics(self, _request: Request) -> Response:
        return PlainTextResponse(exposition(self._state), headers={"content-type": CONTENT_TYPE})

    async def info(self, _request: Request) -> Response:
        loaded = self._state.loaded
        if loaded is None:
            return PlainTextResponse("loading", 503)
        engine, facts = loaded.engine, loaded.weights or loaded.facts
        body = {"facts": facts.to_json(), "parallel": engine.slots, "contextLength": engine.context_length}
        return JSONResponse(body)


async def _lines(watch: AsyncIterator[Activity]) -> AsyncIterator[bytes]:
    async for activity in watch:
        yield json.dumps(activity.to_json(), separators=(",", ":")).encode() + b"\n"
