"""HTTP response of a generation, streamed or whole, shared by all APIs.

Invariants, beside those of ``ApiResponse``:

- The request counts as active from before its prompt is rendered until its last byte is sent.
- The engine's iterator is always closed, which frees its slot within one step.
- Prompt tokens and the output that is held count in the request's memory.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from starlette.types import Send

from corral_server.runner.api.response import ApiResponse, RequestTimes
from corral_server.runner.chat.chat_request import ChatRequest, chat_task
from corral_server.runner.chat.completion_request import CompletionRequest, completion_task
from corral_server.runner.chat.delta import Delta, merge_deltas
from corral_server.runner.chat.loaded_model import LoadedModel
from corral_server.runner.chat.output_parser import OutputParser, OutputParserConfig, create_output_parser
from corral_server.runner.chat.prompt_images import images_of
from corral_server.runner.engine.generation import GenerationResult, GenerationTask
from corral_server.runner.engine.stream import item_bytes
from corral_server.runner.isolation.threads import run_at_low_priority
from corral_server.runner.lifecycle.request_limits import request_limits
from corral_server.runner.lifecycle.state import RunnerState
from corral_server.runner.memory.budget import current_reservation
from corral_server.runner.sampling.text import TextChunk
from corral_server.wire import headers

PROMPT_TOKEN_BYTES = 100
"""A token in the lists of task, slot and draft lookup. A list holds 8 bytes, the integer takes 28."""

_Items = AsyncIterator[TextChunk | GenerationResult]


class ResponseEncoder(ABC):
    """Encodes one generation in the format of one API. A new encoder is created for each request."""

    media_type: bytes
    """Content type of a stream; a whole response is always JSON."""

    def start(self, task: GenerationTask) -> None:  # noqa: B027  # most encoders need nothing of the task
        """Take what the response needs of the task; called once, before every other method."""

    @abstractmethod
    def encode_chunk(self, delta: Delta) -> bytes:
        """Encode a part of a stream from a non-empty delta; empty bytes when this API shows nothing of it."""

    @abstractmethod
    def encode_end(self, result: GenerationResult, times: RequestTimes) -> bytes:
        """Encode the end of a stream."""

    @abstractmethod
    def encode_whole(self, delta: Delta, result: GenerationResult, times: RequestTimes) -> bytes:
        """Encode a response that is not streamed; ``delta`` is the complete output."""


@dataclass(frozen=True, slots=True)
class GenerationJob:
    """A checked request, ready to run.

    ``path`` selects the error format. ``keep_alive`` is in seconds, None when the request has none. ``build_task``
    renders and tokenizes the prompt; it runs in a worker thread and may raise ApiError. ``parser_config`` configures
    the output parser. ``is_slow``: rendering may take seconds, so it must not occupy a thread that other requests need.
    ``num_ctx`` is the context length that the request asks for, 0 if for none.
    """

    path: str
    requested_ns: int
    keep_alive: float | None
    stream: bool
    build_task: Callable[[LoadedModel], GenerationTask]
    encoder: ResponseEncoder
    parser_config: OutputParserConfig
    is_slow: bool = False
    num_ctx: int = 0


def chat_job(
    path: str, requested_ns: int, chat: ChatRequest, *, loaded: LoadedModel, encoder: ResponseEncoder
) -> GenerationJob:
    """Return the job of a chat. Raises ApiError 500 for an option of the wrong type."""
    request = chat.generation
    options = loaded.options.merged(request.options)

    def build_task(loaded: LoadedModel) -> GenerationTask:
        return chat_task(loaded, chat, options)

    parser_config = OutputParserConfig(loaded.template.source, thinks=chat.thinks(loaded), tools=chat.offered_tools)
    return GenerationJob(
        path,
        requested_ns,
        request.keep_alive,
        request.stream,
        build_task,
        encoder,
        parser_config,
        is_slow=bool(images_of(chat.messages)),
        num_ctx=options.num_ctx,
    )


def completion_job(
    path: str, requested_ns: int, completion: CompletionRequest, *, loaded: LoadedModel, encoder: ResponseEncoder
) -> GenerationJob:
    """Return the job of a completion. Raises ApiError 500 for an option of the wrong type."""
    request = completion.generation
    options = loaded.options.merged(request.options)

    def build_task(loaded: LoadedModel) -> GenerationTask:
        return completion_task(loaded, completion, options)

    template = "" if completion.raw else loaded.template.source
    parser_config = OutputParserConfig(template, thinks=completion.thinks(loaded))
    return GenerationJob(
        path,
        requested_ns,
        request.keep_alive,
        request.stream,
        build_task,
        encoder,
        parser_config,
        is_slow=bool(completion.template or completion.images),
        num_ctx=options.num_ctx,
    )


class GenerationResponse(ApiResponse):
    """Runs a GenerationJob and sends its output, streamed or whole."""

    def __init__(self, state: RunnerState, job: GenerationJob) -> None:
        super().__init__(state, job.path)
        self._job = job
        self._prompt_tokens = 0

    async def _respond(self, send: Send) -> None:
        with self._state.active_request(self._job.keep_alive) as loaded:
            times = RequestTimes(self._job.requested_ns, time.monotonic_ns())
            self._note_context(loaded, self._job.num_ctx)
            build = partial(self._job.build_task, loaded)
            built = await (run_at_low_priority(build) if self._job.is_slow else asyncio.to_thread(build))
            task = built.within(request_limits.get())
            current_reservation().grow(PROMPT_TOKEN_BYTES * len(task.prompt))
            self._prompt_tokens = len(task.prompt)
            parser = create_output_parser(self._job.parser_config, task, loaded.engine)
            self._job.encoder.start(task)
            async with aclosing(loaded.engine.generate(task)) as items:
                respond = self._respond_stream if self._job.stream else self._respond_whole
                await respond(items, parser, times=times, send=send)

    async def _respond_stream(self, items: _Items, parser: OutputParser, *, times: RequestTimes, send: Send) -> None:
        encoder = self._job.encoder
        async for item in items:
            if not self._started:
                prompt_tokens = (headers.PROMPT_TOKENS, b"%d" % self._prompt_tokens)
                await self._send_start(encoder.media_type, send, prompt_tokens)
            if isinstance(item, GenerationResult):
                rest = parser.end()
                data = (encoder.encode_chunk(rest) if rest else b"") + encoder.encode_end(item, times)
                await send({"type": "http.response.body", "body": data})
            elif (delta := parser.push(item)) and (data := encoder.encode_chunk(delta)):
                await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _respond_whole(self, items: _Items, parser: OutputParser, *, times: RequestTimes, send: Send) -> None:
        deltas, reservation = [], current_reservation()
        async for item in items:
            if isinstance(item, TextChunk):
                reservation.grow(item_bytes(item))
                deltas.append(parser.push(item))
            else:
                delta = merge_deltas([*deltas, parser.end()])
                await self._send_whole(self._job.encoder.encode_whole(delta, item, times), send)
