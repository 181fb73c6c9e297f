"""Endpoint ``/api/show`` for the one Model that the runner serves.

A verbose response has megabytes of metadata. It is read from the header of the weights at each such request, in a
worker thread, so that it uses no memory otherwise.
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

from corral_core.base.errors import GGUFError
from corral_core.weights.gguf_details import VerboseMetadata, read_verbose_metadata
from corral_server.runner.api.request_body import read_fields
from corral_server.runner.api.response import JSON_CONTENT_TYPE
from corral_server.runner.chat import capabilities
from corral_server.runner.chat.loaded_model import LoadedModel
from corral_server.runner.lifecycle.state import RunnerState
from corral_server.wire import headers as wire_headers
from corral_server.wire.errors import ApiError
from corral_server.wire.json_encoding import compact_json
from corral_server.wire.show import show_object

log = logging.getLogger("corral.runner.show")

_MAX_TIMESTAMP = 253402300800.0
"""The year 10000."""


class ShowEndpoint:
    """The endpoint of one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def show(self, request: Request) -> Response:
        fields = await read_fields(request, "ShowRequest")
        model = fields.string("model") or fields.string("name")
        if not model:
            raise ApiError(400, "model is required")
        capabilities.check_model_name(model)
        verbose = fields.boolean("verbose") or False
        loaded = self._state.require_loaded()
        show_body = partial(
            show_object,
            self._state.spec,
            loaded.metadata,
            modified=_modified_at(request.headers),
            defaults=loaded.defaults,
            requested_name=model,
            system=fields.string("system"),
            user_agent=request.headers.get("user-agent", ""),
        )
        body = (
            await asyncio.to_thread(_verbose_body, show_body, loaded) if verbose else compact_json(show_body()).encode()
        )
        return Response(body, media_type=JSON_CONTENT_TYPE.decode())


def _verbose_body(show_body: Callable[..., dict[str, object]], loaded: LoadedModel) -> bytes:
    """Encode a response with the complete metadata of the weights, or without it when the file is unreadable."""
    verbose: VerboseMetadata | None = None
    try:
        verbose = read_verbose_metadata(loaded.file) if loaded.file else None
    except GGUFError as error:
        log.warning("cannot read the metadata for a verbose /api/show: %s", error)
    return compact_json(show_body(verbose=verbose)).encode("utf-8", "replace")


def _modified_at(headers: Mapping[str, str]) -> float:
    """Return when the Model was changed, in Unix seconds, from the gateway's header; now if it has no valid value."""
    try:
        modified = float(headers.get(wire_headers.MODIFIED.decode(), ""))
    except ValueError:
        return time.time()
    return modified if math.isfinite(modified) and 0 <= modified < _MAX_TIMESTAMP else time.time()
