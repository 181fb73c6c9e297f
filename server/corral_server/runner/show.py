"""``/api/show`` as the runner knows it: the one Model that it serves, from the header of its weights."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from corral_server.runner import capabilities
from corral_server.runner.requests import parse_body, read_body
from corral_server.runner.state import RunnerState
from corral_server.wire.errors import ApiError
from corral_server.wire.show import show_object


class ShowApi:
    """The endpoint over one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def show(self, request: Request) -> Response:
        fields = parse_body(await read_body(request), kind="ShowRequest")
        model = fields.text("model") or fields.text("name")
        if not model:
            raise ApiError(400, "model is required")
        capabilities.check_name(model)
        loaded = self._state.serving()
        body = show_object(
            self._state.spec,
            loaded.facts,
            modified=time.time(),
            asked=model,
            system=fields.text("system"),
            user_agent=request.headers.get("user-agent", ""),
        )
        return JSONResponse(body)
