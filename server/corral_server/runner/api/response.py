"""Base of all generated responses, and the conversion of exceptions to errors of the API that was called.

Invariants:

- An error before the first byte is sent has its own status code and the error format of the path. An error after it
  ends the stream with an error in that format.
- When the client disconnects, the response is cancelled at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from corral_core.base.json_log import error_location
from corral_server.runner.chat.loaded_model import LoadedModel
from corral_server.runner.lifecycle.state import RunnerState, RunnerUnavailable
from corral_server.runner.llama.errors import EngineError, InvalidGrammar, InvalidPrompt, PromptTooLong
from corral_server.runner.templates.templates import ChatTemplateError
from corral_server.wire import headers as wire_headers
from corral_server.wire.errors import ApiError, error_body, stream_error

log = logging.getLogger("corral.runner.response")

JSON_CONTENT_TYPE = b"application/json; charset=utf-8"

_CLIENT_ERRORS = (PromptTooLong, InvalidPrompt, InvalidGrammar)
_MAX_QUEUED_NS = 24 * 3600 * 10**9


@dataclass(frozen=True, slots=True)
class RequestTimes:
    """Nanoseconds on the monotonic clock.

    ``requested_ns``: when the gateway received the request. ``received_ns``: when this runner started to work on it.
    """

    requested_ns: int
    received_ns: int


class ApiResponse(Response):
    """Base of responses that are cancelled when the client disconnects and that report errors in the path's format."""

    def __init__(self, state: RunnerState, path: str) -> None:
        super().__init__()
        self._state = state
        self._path = path
        self._started = False
        """Whether the response has started, so that its status can no longer change."""
        self._context_header: tuple[tuple[bytes, bytes], ...] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = asyncio.create_task(self._respond_or_fail(send), name="response")
        disconnect = asyncio.create_task(_wait_for_disconnect(receive), name="disconnect")
        try:
            await asyncio.wait((response, disconnect), return_when=asyncio.FIRST_COMPLETED)
        finally:
            response.cancel()
            disconnect.cancel()
            await asyncio.gather(response, disconnect, return_exceptions=True)

    async def _respond(self, send: Send) -> None:
        """Send everything. Raises RunnerUnavailable before the first byte when no requests are accepted.

        Any other exception is turned into an error response or an error at the end of the stream.
        """
        raise NotImplementedError

    def _note_context(self, loaded: LoadedModel, num_ctx: int) -> None:
        """Add a header to the response if the request asks for a longer context than it gets."""
        length = self._state.short_contexts.record(loaded, num_ctx, model=self._state.name)
        self._context_header = ((wire_headers.CONTEXT_LENGTH, b"%d" % length),) if length else ()

    async def _send_whole(self, body: bytes, send: Send, *headers: tuple[bytes, bytes]) -> None:
        """Send a complete JSON response."""
        self._started = True
        await _send_json(200, body, send, *headers, *self._context_header)

    async def _send_start(self, media_type: bytes, send: Send, *headers: tuple[bytes, bytes]) -> None:
        """Send the head of a streamed response."""
        self._started = True
        await send(_start_message(200, media_type, *headers, *self._context_header))

    async def _respond_or_fail(self, send: Send) -> None:
        try:
            await self._respond(send)
        except ApiError as error:
            await self._send_error(error, send)
        except Exception as error:  # no failure of one request may affect the next
            await self._send_error(to_api_error(error), send)

    async def _send_error(self, error: ApiError, send: Send) -> None:
        if self._started:
            message = f"an error was encountered while running the model: {error.message}"
            await send({"type": "http.response.body", "body": stream_error(self._path, message)})
        else:
            await _send_json(error.status, error_body(self._path, error.status, error.message), send, *_headers(error))


def to_api_error(error: Exception) -> ApiError:
    """Convert an exception to the error that the client gets.

    An unexpected exception is logged with its location and without its text, which may contain a part of the prompt.
    """
    if isinstance(error, _CLIENT_ERRORS):
        return ApiError(400, str(error))
    if isinstance(error, ChatTemplateError):
        return ApiError(400 if error.is_client_error else 500, str(error))
    if isinstance(error, EngineError):
        log.error("engine error: %s", error)
        return ApiError(500, str(error))
    log.error("request failed with an unexpected exception: %s", error_location(error))
    return ApiError(500, f"internal error: {type(error).__name__}")


def request_start_ns(headers: Mapping[str, str]) -> int:
    """Return when the gateway received the request, in monotonic nanoseconds.

    It is the current time minus the time in the gateway's queue, which the gateway sends in a header. Ollama's
    ``total_duration`` and ``load_duration`` include that time. A value that is not a number counts as 0.
    """
    queued = headers.get(wire_headers.QUEUED.decode(), "")
    queued_ns = int(queued) if queued.isascii() and queued.isdigit() and len(queued) < 16 else 0
    return time.monotonic_ns() - min(queued_ns, _MAX_QUEUED_NS)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _start_message(status: int, media_type: bytes, *headers: tuple[bytes, bytes]) -> dict[str, object]:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", media_type), *headers]}


def _headers(error: ApiError) -> Iterator[tuple[bytes, bytes]]:
    if isinstance(error, RunnerUnavailable):
        yield wire_headers.RETRY, error.reason.encode()
    if error.retry_after is not None:
        yield b"retry-after", str(error.retry_after).encode()


async def _send_json(status: int, body: bytes, send: Send, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send(_start_message(status, JSON_CONTENT_TYPE, length, *headers))
    await send({"type": "http.response.body", "body": body})
