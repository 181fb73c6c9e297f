"""Ollama's model management API: pull, push, copy, delete.

- The checks that Ollama makes come first, with its error texts, which clients match on. Where Models are not managed by
  the API, the rest is rejected with a hint.
- A pull of an existing Model starts or follows the pull of its source, because clients pull before the first request.
  A pull of another name makes a Model first. If its weights do not exist, it leaves none behind.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence

from corral_core.base.errors import InvalidName
from corral_core.base.names import parse_name
from corral_server.gateway.api import metadata
from corral_server.gateway.api.cloud_names import conflicting_sources
from corral_server.gateway.api.pull_stream import (
    LINES_TYPE,
    CleanUp,
    ProgressLine,
    PullFollower,
    completed_lines,
    encode_line,
    wants_stream,
)
from corral_server.gateway.bodies.json_body import field
from corral_server.gateway.directory.directory import Directory, FoundModel
from corral_server.gateway.management.changes import Change, ModelChanges
from corral_server.gateway.messages import Request, Response, json_response
from corral_server.wire.errors import ApiError

MANAGED = "models are managed as Model resources here: apply or delete a Model instead"
PUSHING = (
    "models are not pushed from here: push the weights to a registry from where they are (ollama push, or oras push "
    "for an OCI registry), and create the model from there"
)

_NO_MANIFEST = "pull model manifest: file does not exist"
_ABSENT = re.compile(r"has no '[^']*' of '[^']*': check name and tag|has no (public )?repository|has no quantization")
"""Errors of pulls (``pull/distribution/client.py``, ``pull/resolvers/hubs``) that mean Ollama's missing manifest."""

ReadBody = Callable[[Request, str], Awaitable[Mapping[str, object]]]
"""Reads the body of a request as an object; the text is the name of its Go type. May raise ApiError."""


class RegistryApi:
    """One handler per path. All of them may raise ApiError. Without ``changes`` no Model is changed."""

    def __init__(
        self, directory: Directory, read: ReadBody, pulls: PullFollower, *, changes: ModelChanges | None
    ) -> None:
        self._directory = directory
        self._pulls = pulls
        self._read = read
        self._changes = changes

    async def pull(self, request: Request) -> Response | None:
        """Return progress up to ``success``, after making a Model for a name that has none.

        A source that is not pulled is pulled, and the response follows the pull to its end.
        """
        data = await self._read(request, "PullRequest")
        stream = wants_stream(data, "PullRequest")
        name = _name(data, "PullRequest")
        found = self._lookup(name, invalid_name_error=conflicting_sources(name) or "invalid model name")
        if found is not None and (found.entry.unavailable_reason is not None or not found.entry.needs_pull):
            return await self._pulled(data, found)
        change = None
        if found is None:
            if self._changes is None:
                return _progress(data, ["pulling manifest"], failure=_NO_MANIFEST)
            change = await self._changes.pull(name)
            await self._changes.visible(change)
        key = change.key if found is None and change is not None else found.entry.key if found is not None else ""
        complete = await self._pulls.respond(
            request, key, stream=stream, first=["pulling manifest"], change=change, clean_up=self._clean_up(key, change)
        )
        return None if stream or not complete else json_response({"status": "success"})

    async def push(self, request: Request) -> Response:
        data = await self._read(request, "PushRequest")
        wants_stream(data, "PushRequest")
        name = _name(data, "PushRequest")
        if not name:
            raise ApiError(400, "model is required")
        if self._lookup(name, invalid_name_error="invalid model name") is not None:
            raise ApiError(501, PUSHING)
        steps = ["retrieving manifest", "couldn't retrieve manifest"]
        return _progress(data, steps, failure="push model manifest: file does not exist")

    async def copy(self, request: Request) -> Response:
        data = await self._read(request, "CopyRequest")
        source, target = (field(data, name, kind="CopyRequest") for name in ("source", "destination"))
        found = self._lookup(source, invalid_name_error=f'source "{source}" is invalid')
        self._lookup(target, invalid_name_error=f'destination "{target}" is invalid')
        if found is None:
            raise ApiError(404, f'model "{source}" not found')
        if self._changes is None:
            raise ApiError(501, MANAGED)
        await self._changes.copy(found, target)
        return Response(200, content_type=None)

    async def delete(self, request: Request) -> Response:
        data = await self._read(request, "DeleteRequest")
        name = _name(data, "DeleteRequest")
        if not name:
            raise ApiError(400, "model is required")
        found = self._lookup(name, invalid_name_error=conflicting_sources(name) or f'name "{name}" is invalid')
        if found is None:
            raise ApiError(404, f"model '{name}' not found")
        if self._changes is None:
            raise ApiError(501, MANAGED)
        await self._changes.delete(found)
        return Response(200, content_type=None)

    async def _pulled(self, data: Mapping[str, object], found: FoundModel) -> Response:
        """Return the response of a Model that needs no pull, or whose pull has failed."""
        failure = found.entry.unavailable_reason
        if failure is None:
            return _progress(data, ["pulling manifest", *completed_lines(found.entry)], failure=None)
        error = await self._clean_up(found.entry.key, None)(ApiError(500, failure))
        return _progress(data, ["pulling manifest"], failure=error.message)

    def _clean_up(self, key: str, change: Change | None) -> CleanUp:
        """Leave no Model behind that this request made, or that a client made and whose weights do not exist.

        Then the answer is Ollama's for a missing manifest. A Model of another origin stays, and keeps its own reason.
        """

        async def clean_up(error: ApiError) -> ApiError:
            if self._changes is None or error.status != 500:
                return error
            absent = _ABSENT.search(error.message) is not None
            entry = self._directory.get(key)
            if change is not None and change.made:
                await self._changes.undo(change)
                entry = None
            elif absent and entry is not None and entry.needs_pull and await self._changes.discard(entry):
                entry = None
            return ApiError(500, _NO_MANIFEST) if absent and entry is None else error

        return clean_up

    def _lookup(self, name: str, *, invalid_name_error: str) -> FoundModel | None:
        return find_named(self._directory, name, invalid_name_error=invalid_name_error)


def find_named(directory: Directory, name: str, *, invalid_name_error: str) -> FoundModel | None:
    """Look up a Model by a client's name, None for an unknown one.

    Raises ApiError: 400 with the text ``invalid_name_error`` for an invalid name, 503 before the Models are listed.
    """
    try:
        parse_name(name)
    except InvalidName:
        raise ApiError(400, invalid_name_error) from None
    try:
        return metadata.lookup(directory, name, unknown="")
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def _name(data: Mapping[str, object], kind: str) -> str:
    return field(data, "model", kind=kind) or field(data, "name", kind=kind)


def _progress(data: Mapping[str, object], steps: Sequence[ProgressLine], *, failure: str | None) -> Response:
    """Return all lines, or only the last one if ``stream`` is false."""
    if data.get("stream") is False:
        if failure is not None:
            raise ApiError(500, failure)
        return json_response({"status": "success"})
    lines = [*steps, "success" if failure is None else {"error": failure}]
    return Response(200, b"".join(encode_line(line) for line in lines), LINES_TYPE)
