"""Progress of a Model's pull as the stream of ``/api/pull``, with Ollama's lines (``server/images.go``, ``PullModel``).

The stream follows the Model's entry in the directory. It ends with the pull, with its failure, with the client, or when
the gateway shuts down, which does not wait for pulls.

While clients follow the pull of a Model, the gateway reports that they want it. As in Ollama, a pull that nothing else
asks for ends with its clients, and the next one continues.

A Model that the request has made or changed is followed until that version can be served: its status may still be of
the version before.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from corral_server.gateway.directory.directory import Directory, ModelEntry, PullingFile
from corral_server.gateway.http_server.exchange import DisconnectScope
from corral_server.gateway.management.changes import Change
from corral_server.gateway.messages import Request, to_json
from corral_server.wire.errors import ApiError
from corral_server.wire.go_json import json_kind

LINES_TYPE = b"application/x-ndjson"
POLL_INTERVAL = 0.1
"""Seconds between two looks at the entry; Ollama reports every 60 ms."""

_DELETED = "the Model was deleted"
_SHUTTING_DOWN = "the gateway is shutting down, please try again; what is pulled already stays"

ProgressLine = str | Mapping[str, object]
"""A progress line, or only its ``status``."""

CleanUp = Callable[[ApiError], Awaitable[ApiError]]
"""Handles a failure before the client gets it; returns the error for the client."""


def encode_line(line: ProgressLine) -> bytes:
    return to_json({"status": line} if isinstance(line, str) else line) + b"\n"


def wants_stream(data: Mapping[str, object], kind: str) -> bool:
    """Return whether the progress is streamed, as by default. Raises ApiError 400; ``kind`` is the Go type."""
    value = data.get("stream")
    if value is None or isinstance(value, bool):
        return value is not False
    raise ApiError(400, f"json: cannot unmarshal {json_kind(value)} into Go struct field {kind}.stream of type bool")


def layer_line(file: PullingFile) -> ProgressLine:
    """Return the progress of one file. Ollama leaves out numbers that are 0."""
    sizes = {"total": file.total, "completed": file.completed}
    known = {name: size for name, size in sizes.items() if size}
    return {"status": f"pulling {file.digest[:12]}", "digest": f"sha256:{file.digest}", **known}


def completed_lines(entry: ModelEntry) -> list[ProgressLine]:
    """Return the lines at the end of a pull. Weights whose metadata is unknown have no line."""
    lines: list[ProgressLine] = []
    if entry.metadata is not None:
        lines.append(layer_line(PullingFile(entry.digest, entry.metadata.size, entry.metadata.size)))
    return [*lines, "verifying sha256 digest", "writing manifest"]


class PullFollower:
    """Follows the pulls of Models. ``draining`` returns whether the gateway shuts down."""

    def __init__(self, directory: Directory, draining: Callable[[], bool]) -> None:
        self._directory = directory
        self._draining = draining
        self._followers: Counter[str] = Counter()
        self._files: dict[str, tuple[PullingFile, ...]] = {}
        directory.subscribe(self._changed)

    def _changed(self, key: str) -> None:
        """Keep the files of a pull that is followed: it can end before the next look at the entry."""
        entry = self._directory.get(key) if key in self._followers else None
        if entry is not None and entry.pulling:
            self._files[key] = entry.pulling

    async def respond(
        self,
        request: Request,
        key: str,
        *,
        stream: bool,
        first: Sequence[ProgressLine],
        change: Change | None = None,
        creating: bool = False,
        clean_up: CleanUp,
    ) -> bool:
        """Follow the pull of the Model to its end; return whether it was completed, False when the client is gone.

        With ``stream`` the response is sent: the lines ``first``, progress, then ``success`` or an error. Without, it
        is the caller's. ``creating``: layers that need no pull are named as those of a create.

        Raises ApiError: 500 with the reason of a failure, 503 at a shutdown.
        """
        exchange, complete = request.exchange, False
        if stream:
            exchange.start_response(200, [(b"content-type", LINES_TYPE), *request.response_headers])
            exchange.write(b"".join(map(encode_line, first)))
        try:
            with self._following(key, request):
                async for line in self._lines(key, change, creating=creating):
                    if stream:
                        await exchange.drain()
                        exchange.write(encode_line(line))
                complete = True
        except ApiError as error:
            error = await clean_up(error)
            if not stream:
                raise error from None
            exchange.write(encode_line({"error": error.message}), last=True)
            return True
        if complete and stream:
            exchange.write(b"", last=True)
        return complete

    @contextmanager
    def _following(self, key: str, request: Request) -> Iterator[None]:
        """Want the pull during the block, which is cancelled when the client disconnects."""
        self._followers[key] += 1
        self._directory.want_pull(key, True)
        try:
            with DisconnectScope(request.exchange):
                yield
        finally:
            self._followers[key] -= 1
            if not self._followers[key]:
                del self._followers[key]
                self._files.pop(key, None)
                self._directory.want_pull(key, False)

    async def _lines(self, key: str, change: Change | None, *, creating: bool) -> AsyncIterator[ProgressLine]:
        """Yield the progress until the Model is pulled, ``success`` included. Raises ApiError 500 and 503."""
        sent: dict[str, PullingFile] = {}
        existing = creating
        while True:
            entry = self._directory.get(key)
            if entry is None:
                raise ApiError(500, _DELETED)
            failure = entry.unavailable_reason if change is None else change.failure(entry)
            if failure is not None:
                raise ApiError(500, failure)
            if not entry.needs_pull if change is None else change.served_by(entry):
                break
            if self._draining():
                raise ApiError(503, _SHUTTING_DOWN, retry_after=1)
            for file in _news(entry.pulling or (), sent):
                yield layer_line(file)
            existing = existing and not entry.needs_pull
            await asyncio.sleep(POLL_INTERVAL)
        created = [f"using existing layer sha256:{entry.digest}", "writing manifest", "success"]
        files = {file.digest: file for file in self._files.get(key, ())} | sent
        for line in created if existing else _last_lines(entry, list(files.values())):
            yield line


def _news(files: Sequence[PullingFile], sent: dict[str, PullingFile]) -> list[PullingFile]:
    """Return the files that have progressed, and record them. A file that has not begun comes after those before it."""
    news = [file for file in files if sent.get(file.digest) != file and (file.completed or file is files[0])]
    sent.update((file.digest, file) for file in news)
    return news


def _last_lines(entry: ModelEntry, files: Sequence[PullingFile]) -> list[ProgressLine]:
    whole = [layer_line(PullingFile(file.digest, file.total, file.total)) for file in files]
    rest = completed_lines(entry)[-2:] if files else completed_lines(entry)
    return [*whole, *rest, "success"]
