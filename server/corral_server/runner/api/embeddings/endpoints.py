"""Endpoints ``/api/embed``, ``/api/embeddings`` and ``/v1/embeddings``; they share one implementation.

The checks have the order of ``EmbedHandler`` and ``EmbeddingsHandler`` in Ollama's ``server/routes.go``: types of the
body, input, model name, capabilities of the model, options.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from corral_server.runner.api.embeddings.encoder import EmbeddingResult, encode_embed, encode_embeddings, encode_openai
from corral_server.runner.api.embeddings.inputs import InputLimit, tokenize_input
from corral_server.runner.api.request_body import RequestFields, read_fields
from corral_server.runner.api.response import ApiResponse, RequestTimes, request_start_ns
from corral_server.runner.api.shared_fields import parse_keep_alive
from corral_server.runner.chat import capabilities
from corral_server.runner.chat.loaded_model import LoadedModel
from corral_server.runner.lifecycle.state import RunnerState
from corral_server.runner.memory.budget import current_reservation
from corral_server.wire.errors import ApiError

EMBED, EMBEDDINGS, OPENAI_EMBEDDINGS = "/api/embed", "/api/embeddings", "/v1/embeddings"

log = logging.getLogger("corral.runner.embed")

INPUT_TOKEN_BYTES = 36
"""A token of an input: its place in a list, and the integer."""
INPUT_BYTES, VALUE_BYTES = 400, 20
"""Lists and objects of one input, and one value of its vector as a float and as text."""

_NO_EMBEDDINGS_ERROR = "This server does not support embeddings. Start it with `--embeddings`"


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A checked request. Without ``inputs`` it only loads the model. ``dimensions`` 0 means all of the model's."""

    path: str
    model: str
    inputs: tuple[str, ...]
    encode: Callable[[EmbeddingResult], bytes]
    requested_ns: int
    keep_alive: float | None = None
    truncate: bool = True
    dimensions: int = 0
    options: RequestFields | None = None


class EmbeddingEndpoints:
    """The three endpoints of one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def embed(self, request: Request) -> Response:
        requested_ns = request_start_ns(request.headers)
        fields = await read_fields(request, "EmbedRequest")
        job = EmbeddingRequest(
            EMBED,
            fields.string("model"),
            _parse_inputs(fields.value("input"), keep_empty=False),
            encode_embed,
            requested_ns,
            keep_alive=parse_keep_alive(fields),
            truncate=fields.boolean("truncate") is not False,
            dimensions=fields.integer("dimensions") or 0,
            options=fields,
        )
        if not job.model:
            raise ApiError(404, "model '' not found")
        return self._respond(job, unsupported_status=501)

    async def embeddings(self, request: Request) -> Response:
        requested_ns = request_start_ns(request.headers)
        fields = await read_fields(request, "EmbeddingRequest")
        prompt = fields.string("prompt")
        job = EmbeddingRequest(
            EMBEDDINGS,
            fields.string("model"),
            (prompt,) if prompt else (),
            encode_embeddings,
            requested_ns,
            keep_alive=parse_keep_alive(fields),
            options=fields,
        )
        if not job.model:
            raise ApiError(400, "model is required")
        return self._respond(job, unsupported_status=500)

    async def openai(self, request: Request) -> Response:
        requested_ns = request_start_ns(request.headers)
        fields = await read_fields(request, "EmbedRequest", package="openai")
        encoding = fields.string("encoding_format")
        if encoding and encoding.lower() not in ("float", "base64"):
            allowed = "Supported values: ['float', 'base64']."
            raise ApiError(400, f"Invalid value for 'encoding_format' = {encoding}. {allowed}")
        value = fields.value("input")
        if value is None or value == []:
            raise ApiError(400, "invalid input")
        packed = encoding.lower() == "base64"
        job = EmbeddingRequest(
            OPENAI_EMBEDDINGS,
            fields.string("model"),
            _parse_inputs(value, keep_empty=True),
            lambda result: encode_openai(result, packed=packed),
            requested_ns,
            dimensions=fields.integer("dimensions") or 0,
        )
        if not job.model:
            raise ApiError(404, "model '' not found")
        return self._respond(job, unsupported_status=501)

    def _respond(self, job: EmbeddingRequest, *, unsupported_status: int) -> Response:
        capabilities.check_model_name(job.model)
        loaded = self._state.require_loaded()
        if job.inputs and not (self._state.spec.embeddings or "embedding" in loaded.metadata.capabilities):
            log.warning("embeddings request refused: set embeddings: true in the spec of Model %s", self._state.name)
            raise ApiError(unsupported_status, _NO_EMBEDDINGS_ERROR)
        num_ctx = _num_ctx(loaded, job.options) if job.options is not None else 0
        length = loaded.engine.context_length
        limit = InputLimit(min(num_ctx, length) if num_ctx > 0 else length, job.truncate)
        return EmbeddingResponse(self._state, job, limit, num_ctx=num_ctx)


class EmbeddingResponse(ApiResponse):
    """Embeds the inputs of one request and sends the vectors."""

    def __init__(self, state: RunnerState, job: EmbeddingRequest, limit: InputLimit, *, num_ctx: int) -> None:
        super().__init__(state, job.path)
        self._num_ctx = num_ctx
        self._job = job
        self._limit = limit

    async def _respond(self, send: Send) -> None:
        job = self._job
        with self._state.active_request(job.keep_alive) as loaded:
            times = RequestTimes(job.requested_ns, time.monotonic_ns())
            self._note_context(loaded, self._num_ctx)
            current_reservation().grow(_response_bytes(loaded, len(job.inputs)))
            inputs = await asyncio.to_thread(_tokenize_all, loaded, job.inputs, self._limit)
            current_reservation().grow(INPUT_TOKEN_BYTES * sum(map(len, inputs)))
            vectors = await loaded.engine.embed(inputs, loaded.adapter_of(job.model)) if inputs else []
            count = sum(len(tokens) for tokens in inputs)
            result = EmbeddingResult(job.model, vectors, count, job.dimensions, times)
            body = await asyncio.to_thread(job.encode, result)
            await self._send_whole(body, send)


def _response_bytes(loaded: LoadedModel, inputs: int) -> int:
    """Return the memory of the vectors and their text."""
    return inputs * (INPUT_BYTES + VALUE_BYTES * loaded.metadata.embedding_length)


def _tokenize_all(loaded: LoadedModel, inputs: Sequence[str], limit: InputLimit) -> list[list[int]]:
    return [tokenize_input(loaded.engine, text, limit) for text in inputs]


def _parse_inputs(value: object, *, keep_empty: bool) -> tuple[str, ...]:
    """Return the texts of ``input``. A single empty string counts as no input unless ``keep_empty``."""
    if isinstance(value, str):
        return (value,) if value or keep_empty else ()
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ApiError(400, "invalid input type")
    texts = tuple(item for item in value if isinstance(item, str))
    if len(texts) != len(value):
        raise ApiError(400, "invalid input type")
    return texts


def _num_ctx(loaded: LoadedModel, fields: RequestFields) -> int:
    """Return the request's ``num_ctx``, 0 if it has none. Raises ApiError 500 for an option of the wrong type."""
    return loaded.options.merged(fields.mapping("options")).num_ctx
