"""``/api/embed``, ``/api/embeddings`` and ``/v1/embeddings``: one way of embedding, three ways of asking for it.

Checks come in Ollama's order: the body's types, the input, the name, what the model can do, the options.
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

from corral_server.runner import capabilities
from corral_server.runner.answer import Answer, Times, send_whole, started_at
from corral_server.runner.embed_input import Limit, tokens_of
from corral_server.runner.embed_writer import Written, write_embed, write_embeddings, write_openai
from corral_server.runner.keepalive import keep_alive_of
from corral_server.runner.requests import MISSING_BODY_OPENAI, Fields, parse_body, read_body
from corral_server.runner.state import Loaded, RunnerState
from corral_server.wire.errors import ApiError

EMBED, EMBEDDINGS, OPENAI_EMBEDDINGS = "/api/embed", "/api/embeddings", "/v1/embeddings"

log = logging.getLogger("corral.runner.embed")

_NO_EMBEDDINGS = "This server does not support embeddings. Start it with `--embeddings`"


@dataclass(frozen=True, slots=True)
class Wish:
    """One request. ``inputs`` may be none: the model is then only loaded. ``dimensions`` 0 means all."""

    path: str
    model: str
    inputs: tuple[str, ...]
    write: Callable[[Written], bytes]
    started: int
    keep_alive: float | None = None
    truncate: bool = True
    dimensions: int = 0
    options: Fields | None = None


class EmbedApi:
    """The three endpoints over one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def embed(self, request: Request) -> Response:
        started = started_at(request.headers)
        fields = parse_body(await read_body(request), kind="EmbedRequest")
        wish = Wish(
            EMBED,
            fields.text("model"),
            _inputs(fields.raw("input"), keep_empty=False),
            write_embed,
            started,
            keep_alive=keep_alive_of(fields),
            truncate=fields.flag("truncate") is not False,
            dimensions=fields.integer("dimensions") or 0,
            options=fields,
        )
        if not wish.model:
            raise ApiError(404, "model '' not found")
        return self._answer(wish, refused=501)

    async def embeddings(self, request: Request) -> Response:
        started = started_at(request.headers)
        fields = parse_body(await read_body(request), kind="EmbeddingRequest")
        prompt = fields.text("prompt")
        wish = Wish(
            EMBEDDINGS,
            fields.text("model"),
            (prompt,) if prompt else (),
            write_embeddings,
            started,
            keep_alive=keep_alive_of(fields),
            options=fields,
        )
        if not wish.model:
            raise ApiError(400, "model is required")
        return self._answer(wish, refused=500)

    async def openai(self, request: Request) -> Response:
        started = started_at(request.headers)
        fields = parse_body(
            await read_body(request), kind="EmbedRequest", package="openai", missing=MISSING_BODY_OPENAI
        )
        encoding = fields.text("encoding_format")
        if encoding and encoding.lower() not in ("float", "base64"):
            allowed = "Supported values: ['float', 'base64']."
            raise ApiError(400, f"Invalid value for 'encoding_format' = {encoding}. {allowed}")
        given = fields.raw("input")
        if given is None or given == []:
            raise ApiError(400, "invalid input")
        packed = encoding.lower() == "base64"
        wish = Wish(
            OPENAI_EMBEDDINGS,
            fields.text("model"),
            _inputs(given, keep_empty=True),
            lambda written: write_openai(written, packed=packed),
            started,
            dimensions=fields.integer("dimensions") or 0,
        )
        if not wish.model:
            raise ApiError(404, "model '' not found")
        return self._answer(wish, refused=501)

    def _answer(self, wish: Wish, *, refused: int) -> Response:
        capabilities.check_name(wish.model)
        loaded = self._state.serving()
        if wish.inputs and not (self._state.spec.embeddings or "embedding" in loaded.facts.capabilities):
            log.warning("embeddings were refused: the Model %s has to say embeddings: true", self._state.name)
            raise ApiError(refused, _NO_EMBEDDINGS)
        limit = Limit(loaded.engine.context_length, wish.truncate)
        if wish.options is not None:
            limit = _checked_limit(loaded, wish.options, limit)
        return EmbedAnswer(self._state, wish, limit)


class EmbedAnswer(Answer):
    """The vectors of one request, in one answer."""

    def __init__(self, state: RunnerState, wish: Wish, limit: Limit) -> None:
        super().__init__(state, wish.path)
        self._wish = wish
        self._limit = limit

    async def _serve(self, send: Send) -> None:
        wish = self._wish
        with self._state.request(wish.keep_alive) as loaded:
            times = Times(wish.started, time.monotonic_ns())
            inputs = await asyncio.to_thread(_tokens, loaded, wish.inputs, self._limit)
            vectors = await loaded.engine.embed(inputs, loaded.adapter_of(wish.model)) if inputs else []
            count = sum(len(tokens) for tokens in inputs)
            written = Written(wish.model, vectors, count, wish.dimensions, times)
            body = await asyncio.to_thread(wish.write, written)
            self._begun = True
            await send_whole(200, body, send)


def _tokens(loaded: Loaded, inputs: Sequence[str], limit: Limit) -> list[list[int]]:
    return [tokens_of(loaded.engine, text, limit) for text in inputs]


def _inputs(given: object, *, keep_empty: bool) -> tuple[str, ...]:
    """The texts; an empty one by itself is none at all where ``keep_empty`` is not said."""
    if isinstance(given, str):
        return (given,) if given or keep_empty else ()
    if given is None:
        return ()
    if not isinstance(given, list):
        raise ApiError(400, "invalid input type")
    texts = tuple(item for item in given if isinstance(item, str))
    if len(texts) != len(given):
        raise ApiError(400, "invalid input type")
    return texts


def _checked_limit(loaded: Loaded, fields: Fields, limit: Limit) -> Limit:
    """A request's ``num_ctx`` may shorten what is read of its inputs. Raises ApiError 500 for an option's type."""
    options = fields.mapping("options")
    loaded.options.updated(options)
    wanted = options.get("num_ctx")
    if isinstance(wanted, int | float) and wanted > 0:
        return Limit(min(limit.tokens, int(wanted)), limit.truncate)
    return limit
