"""One generation as an HTTP answer, for every API: streamed or whole, ended at once when the client leaves.

What always holds: the request counts as active from before its prompt is made until its last byte, and no longer;
an error before the first byte has its own status in the format of the path, one after it ends the stream in that
format; the engine's iterator is closed whatever happens, which frees its slot within one step.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from corral_core.jsonlog import origin
from corral_server.runner.delta import Delta, merged
from corral_server.runner.generation import (
    EngineError,
    Finish,
    InvalidGrammar,
    InvalidPrompt,
    Piece,
    PromptTooLong,
    Task,
)
from corral_server.runner.reading import PLAIN, Reader, Reading, reader_for
from corral_server.runner.state import Loaded, NotServing, RunnerState
from corral_server.runner.templates import TemplateFailed
from corral_server.wire import headers as wire_headers
from corral_server.wire.errors import ApiError, error_body, stream_error

log = logging.getLogger("corral.runner.answer")

JSON = b"application/json; charset=utf-8"

_CLIENT_FAULTS = (PromptTooLong, InvalidPrompt, InvalidGrammar)
_Items = AsyncIterator[Piece | Finish]
_MAX_QUEUED = 24 * 3600 * 10**9


@dataclass(frozen=True, slots=True)
class Times:
    """Nanoseconds on the monotonic clock: when the client's request started, and when this runner took it."""

    started: int
    begun: int


class Writer(Protocol):
    """How one API writes a generation."""

    @property
    def media_type(self) -> bytes:
        """Of a stream; a whole answer is always JSON."""

    def begin(self, task: Task) -> None:
        """Called once, before everything else."""

    def piece(self, delta: Delta) -> bytes:
        """A part of a stream; empty when there is nothing to be sent. The delta is not."""

    def end(self, finish: Finish, times: Times) -> bytes:
        """The end of a stream, after all its pieces."""

    def whole(self, delta: Delta, finish: Finish, times: Times) -> bytes:
        """The answer in one."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a request asks for. ``prepare`` makes the prompt, in a thread of its own; it may raise ApiError.

    ``reading`` says what is told apart in the text.
    """

    path: str
    started: int
    keep_alive: float | None
    stream: bool
    prepare: Callable[[Loaded], Task]
    writer: Writer
    reading: Reading = PLAIN


class Answer(Response):
    """What is ended at once when the client leaves, and tells it in the format of the path what went wrong."""

    def __init__(self, state: RunnerState, path: str) -> None:
        super().__init__()
        self._state = state
        self._path = path
        self._begun = False
        """Whether the first byte was sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = asyncio.create_task(self._answer(send), name="answer")
        gone = asyncio.create_task(_departure(receive), name="departure")
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            answer.cancel()
            gone.cancel()
            await asyncio.gather(answer, gone, return_exceptions=True)

    async def _serve(self, send: Send) -> None:
        """Sends everything. May raise whatever; NotServing when the runner takes no requests, before the first byte."""
        raise NotImplementedError

    async def _answer(self, send: Send) -> None:
        try:
            await self._serve(send)
        except ApiError as error:
            await self._fail(error, send)
        except Exception as error:  # whatever went wrong, the client is told and the next request works
            await self._fail(failure(error), send)

    async def _fail(self, error: ApiError, send: Send) -> None:
        if self._begun:
            message = f"an error was encountered while running the model: {error.message}"
            await send({"type": "http.response.body", "body": stream_error(self._path, message)})
        else:
            retry = error.reason.encode() if isinstance(error, NotServing) else None
            await send_whole(error.status, error_body(self._path, error.status, error.message), send, retry=retry)


class GenerationAnswer(Answer):
    """Streamed or whole."""

    def __init__(self, state: RunnerState, work: Work) -> None:
        super().__init__(state, work.path)
        self._work = work

    async def _serve(self, send: Send) -> None:
        with self._state.request(self._work.keep_alive) as loaded:
            times = Times(self._work.started, time.monotonic_ns())
            task = await asyncio.to_thread(self._work.prepare, loaded)
            reader = reader_for(self._work.reading, task, loaded.engine)
            self._work.writer.begin(task)
            async with aclosing(loaded.engine.generate(task)) as items:
                answer = self._stream if self._work.stream else self._whole
                await answer(items, reader, times=times, send=send)

    async def _stream(self, items: _Items, reader: Reader, *, times: Times, send: Send) -> None:
        writer = self._work.writer
        async for item in items:
            if not self._begun:
                await send(_start(200, writer.media_type))
                self._begun = True
            if isinstance(item, Finish):
                rest = reader.end()
                data = (writer.piece(rest) if rest else b"") + writer.end(item, times)
                await send({"type": "http.response.body", "body": data})
            elif (delta := reader.push(item)) and (data := writer.piece(delta)):
                await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _whole(self, items: _Items, reader: Reader, *, times: Times, send: Send) -> None:
        deltas = []
        async for item in items:
            if isinstance(item, Piece):
                deltas.append(reader.push(item))
            else:
                body = self._work.writer.whole(merged([*deltas, reader.end()]), item, times)
                self._begun = True
                await send_whole(200, body, send)


def failure(error: Exception) -> ApiError:
    """What a client is told of an error that is not the API's own."""
    if isinstance(error, _CLIENT_FAULTS):
        return ApiError(400, str(error))
    if isinstance(error, TemplateFailed):
        return ApiError(400 if error.clients_fault else 500, str(error))
    if isinstance(error, EngineError):
        log.error("the engine failed: %s", error)
        return ApiError(500, str(error))
    log.error("a request failed: %s", origin(error))
    return ApiError(500, f"internal error: {type(error).__name__}")


def started_at(headers: Mapping[str, str]) -> int:
    """When the request started for the client: now, less what the gateway says that it held the request."""
    queued = headers.get(wire_headers.QUEUED.decode(), "")
    held = int(queued) if queued.isascii() and queued.isdigit() and len(queued) < 16 else 0
    return time.monotonic_ns() - min(held, _MAX_QUEUED)


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _start(status: int, media_type: bytes, *headers: tuple[bytes, bytes]) -> dict[str, object]:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", media_type), *headers]}


async def send_whole(status: int, body: bytes, send: Send, *, retry: bytes | None = None) -> None:
    extra = [(b"content-length", str(len(body)).encode())] + ([(wire_headers.RETRY, retry)] if retry else [])
    await send(_start(status, JSON, *extra))
    await send({"type": "http.response.body", "body": body})
