"""What clients ask of a registry or of a store of models: pull, push, create, copy, delete, blobs.

Models come and go as Model resources here, so nothing of it changes anything. A pull of a name that a Model has
succeeds, since it is there: clients pull before they ask. All else is refused with the way to do it, but only after the
checks that Ollama makes first, whose texts clients match on.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence

from corral_core.errors import InvalidName
from corral_core.names import parse_name
from corral_server.gateway import metadata
from corral_server.gateway.body import field
from corral_server.gateway.directory import Directory, Entry
from corral_server.gateway.messages import Answer, Request, json_answer, to_json
from corral_server.wire.errors import ApiError

MANAGED = "models are managed as Model resources here: apply or delete a Model instead"
BLOBS = "/api/blobs/"

_LINES = b"application/x-ndjson"
_NO_MANIFEST = "pull model manifest: file does not exist"
_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")

Reader = Callable[[Request, str], Awaitable[Mapping[str, object]]]
"""The body of a request as an object; the text is Go's name of its type. May raise ApiError."""

Step = str | Mapping[str, object]
"""A line of progress, or its ``status`` alone."""


class Registry:
    """One handler for each path; every one may raise ApiError."""

    def __init__(self, directory: Directory, read: Reader) -> None:
        self._directory = directory
        self._read = read

    async def pull(self, request: Request) -> Answer:
        """Progress up to ``success`` for a Model's name, or the words by which clients know that there is none."""
        data = await self._read(request, "PullRequest")
        entry = self._named(_name(data, "PullRequest"), wrong="invalid model name")
        failure = _NO_MANIFEST if entry is None else entry.failure
        steps: list[Step] = ["pulling manifest"]
        if entry is not None and failure is None:
            steps += [*_layer(entry), "verifying sha256 digest", "writing manifest"]
        return _progress(data, steps, failure=failure)

    async def push(self, request: Request) -> Answer:
        data = await self._read(request, "PushRequest")
        name = _name(data, "PushRequest")
        if not name:
            raise ApiError(400, "model is required")
        if self._named(name, wrong="invalid model name") is not None:
            raise ApiError(501, MANAGED)
        steps = ["retrieving manifest", "couldn't retrieve manifest"]
        return _progress(data, steps, failure="push model manifest: file does not exist")

    async def create(self, request: Request) -> Answer:
        data = await self._read(request, "CreateRequest")
        self._named(_name(data, "CreateRequest"), wrong="invalid model name")
        if not any(data.get(source) for source in ("from", "files", "modelfile")):
            raise ApiError(400, "neither 'from' or 'files' was specified")
        raise ApiError(501, MANAGED)

    async def copy(self, request: Request) -> Answer:
        data = await self._read(request, "CopyRequest")
        source, target = (field(data, name, kind="CopyRequest") for name in ("source", "destination"))
        found = self._named(source, wrong=f'source "{source}" is invalid')
        self._named(target, wrong=f'destination "{target}" is invalid')
        raise ApiError(501, MANAGED) if found else ApiError(404, f'model "{source}" not found')

    async def delete(self, request: Request) -> Answer:
        data = await self._read(request, "DeleteRequest")
        name = _name(data, "DeleteRequest")
        if not name:
            raise ApiError(400, "model is required")
        found = self._named(name, wrong=f'name "{name}" is invalid')
        raise ApiError(501, MANAGED) if found else ApiError(404, f"model '{name}' not found")

    async def blob(self, request: Request) -> Answer:
        """No blob is ever there."""
        if _DIGEST.fullmatch(request.path.removeprefix(BLOBS)) is None:
            raise ApiError(400, "invalid digest format")
        if request.method == "HEAD":
            return Answer(404, content_type=None)
        raise ApiError(501, MANAGED)

    def _named(self, name: str, *, wrong: str) -> Entry | None:
        """The Model with this name. Raises ApiError: 400 with ``wrong``, 503 while the Models are not known yet."""
        try:
            parse_name(name)
        except InvalidName:
            raise ApiError(400, wrong) from None
        try:
            return metadata.lookup(self._directory, name, unknown="")
        except ApiError as error:
            if error.status == 404:
                return None
            raise


def _name(data: Mapping[str, object], kind: str) -> str:
    return field(data, "model", kind=kind) or field(data, "name", kind=kind)


def _layer(entry: Entry) -> list[Step]:
    """The weights, which are there in full; nothing while nobody has read them yet."""
    if entry.facts is None:
        return []
    size, digest = entry.facts.size, entry.digest
    return [{"status": f"pulling {digest[:12]}", "digest": f"sha256:{digest}", "total": size, "completed": size}]


def _progress(data: Mapping[str, object], steps: Sequence[Step], *, failure: str | None) -> Answer:
    """Lines, or the last of them alone where ``stream`` is false."""
    if data.get("stream") is False:
        if failure is not None:
            raise ApiError(500, failure)
        return json_answer({"status": "success"})
    lines = [{"status": step} if isinstance(step, str) else step for step in steps]
    lines.append({"status": "success"} if failure is None else {"error": failure})
    return Answer(200, b"".join(to_json(line) + b"\n" for line in lines), _LINES)
