"""``/api/show`` as the runner knows it: the one Model that it serves, from the header of its weights.

A verbose one reads the header again, which costs nothing while nobody asks; it is megabytes, so it is made in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from corral_core.errors import GGUFError
from corral_core.gguf_verbose import Verbose, read_verbose
from corral_server.runner import capabilities
from corral_server.runner.answer import JSON
from corral_server.runner.delta_json import compact
from corral_server.runner.requests import parse_body, read_body
from corral_server.runner.state import Loaded, RunnerState
from corral_server.wire import headers as wire_headers
from corral_server.wire.errors import ApiError
from corral_server.wire.show import show_object

log = logging.getLogger("corral.runner.show")

_LATEST = 253402300800.0
"""The year 10000."""


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
        verbose = fields.flag("verbose") or False
        loaded = self._state.serving()
        shown = partial(
            show_object,
            self._state.spec,
            loaded.facts,
            modified=_modified(request.headers),
            asked=model,
            system=fields.text("system"),
            user_agent=request.headers.get("user-agent", ""),
        )
        body = await asyncio.to_thread(_verbose, shown, loaded) if verbose else compact(shown()).encode()
        return Response(body, media_type=JSON.decode())


def _verbose(shown: Callable[..., dict[str, object]], loaded: Loaded) -> bytes:
    """With what the weights' header has beside the facts; without it, where the file cannot be read any more."""
    verbose: Verbose | None = None
    try:
        verbose = read_verbose(loaded.file) if loaded.file else None
    except GGUFError as error:
        log.warning("the weights cannot be shown: %s", error)
    return compact(shown(verbose=verbose)).encode("utf-8", "replace")


def _modified(headers: Mapping[str, str]) -> float:
    """When the Model was changed, as a gateway tells it."""
    try:
        told = float(headers.get(wire_headers.MODIFIED.decode(), ""))
    except ValueError:
        return time.time()
    return told if math.isfinite(told) and 0 <= told < _LATEST else time.time()
