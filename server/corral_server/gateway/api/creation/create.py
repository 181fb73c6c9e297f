"""``/api/create``: makes or replaces a Model.

The Model is written first, then its source is pulled if it has to be. If that fails, or the client leaves, the Model is
deleted, or the version before is restored, as a create in Ollama takes effect only at its end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence

from corral_core.base.json_fields import JsonObject
from corral_core.contracts.source_defaults import NO_DEFAULTS, SourceDefaults
from corral_server.gateway.api.creation.request import (
    CreateRequest,
    adapter_spec,
    blob_source,
    parse_create,
    split_projector,
    with_changes,
)
from corral_server.gateway.api.pull_stream import PullFollower, wants_stream
from corral_server.gateway.api.registry import find_named
from corral_server.gateway.directory.directory import Directory
from corral_server.gateway.management.blobs import BlobStore
from corral_server.gateway.management.changes import ModelChanges
from corral_server.gateway.messages import Request, Response, json_response
from corral_server.wire.errors import ApiError

ReadBody = Callable[[Request, str], Awaitable[Mapping[str, object]]]
_NO_SOURCE = "neither 'from' or 'files' was specified"


class CreateApi:
    """``unmanaged`` is the error without ``changes``."""

    def __init__(
        self,
        directory: Directory,
        read: ReadBody,
        pulls: PullFollower,
        *,
        changes: ModelChanges | None,
        blobs: BlobStore | None,
        unmanaged: str,
    ) -> None:
        self._directory = directory
        self._read = read
        self._pulls = pulls
        self._blobs = blobs
        self._changes = changes
        self._unmanaged = unmanaged

    async def create(self, request: Request) -> Response | None:
        """Send progress up to ``success``. Raises ApiError for a request that is refused."""
        data = await self._read(request, "CreateRequest")
        stream = wants_stream(data, "CreateRequest")
        wanted = parse_create(data)
        find_named(self._directory, wanted.name, invalid_name_error="invalid model name")
        if not wanted.base and data.get("files") is None:
            raise ApiError(400, _NO_SOURCE)
        changes = self._changes
        if changes is None:
            raise ApiError(501, self._unmanaged)
        changes.namespace(wanted.name)
        spec = await self._spec(wanted, changes)
        change = await changes.put(wanted.name, spec)
        await changes.visible(change)

        async def clean_up(error: ApiError) -> ApiError:
            await changes.undo(change)
            return error

        complete = await self._pulls.respond(
            request,
            change.key,
            stream=stream,
            first=_first_lines(wanted),
            change=change,
            creating=True,
            clean_up=clean_up,
        )
        if not complete:
            await changes.undo(change)
        return None if stream or not complete else json_response({"status": "success"})

    async def _spec(self, wanted: CreateRequest, changes: ModelChanges) -> JsonObject:
        base, defaults = await self._base(wanted, changes)
        if wanted.adapters:
            base = {**base, **adapter_spec(wanted.name, await blob_source(self._blobs, wanted.adapters, adapter=True))}
        return with_changes(base, wanted, defaults)

    async def _base(self, wanted: CreateRequest, changes: ModelChanges) -> tuple[JsonObject, SourceDefaults]:
        """Return the spec that the request changes, and what its source brings as far as that is known."""
        if not wanted.base:
            weights, projector = split_projector(wanted.files)
            spec = changes.uploaded_spec(await blob_source(self._blobs, weights))
            if projector:
                spec["projector"] = await blob_source(self._blobs, projector)
            return spec, NO_DEFAULTS
        if "://" not in wanted.base:
            found = find_named(self._directory, wanted.base, invalid_name_error="invalid model name")
            if found is not None:
                return changes.base_spec(found, wanted.name), found.entry.defaults
        return changes.source_spec(wanted.base), NO_DEFAULTS


def _first_lines(wanted: CreateRequest) -> Sequence[str]:
    """Return Ollama's lines about layers: uploaded files exist, texts are new."""
    files = [*wanted.files.values(), *wanted.adapters.values()]
    texts = [wanted.template, wanted.system, *wanted.licenses]
    digests = [hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() for text in texts if text]
    parsing = ["parsing GGUF"] if files else []
    existing = [f"using existing layer {digest}" for digest in files]
    return [*wanted.lines, *parsing, *existing, *(f"creating new layer sha256:{digest}" for digest in digests)]
