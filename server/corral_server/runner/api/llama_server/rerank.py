"""Endpoint ``/v1/rerank``: the relevance of documents for a query, as Jina's, Cohere's and llama.cpp's APIs have it.

- Request: ``query``, ``documents`` (texts, or objects with ``text``), ``top_n``, ``return_documents``, ``truncate``.
- The scores are those of the model's classification head (llama.cpp's rank pooling), the highest first. They are not
  normalized: a cross-encoder's are logits, those of Qwen3's rerankers probabilities.
- With ``texts`` in place of ``documents`` the response is the array of Text Embeddings Inference, as in llama.cpp.

Source: ``post_rerank`` in llama.cpp's ``tools/server/server-context.cpp``, ``format_response_rerank`` in
``server-common.cpp``. Differs: ``documents`` may be objects, ``return_documents`` and ``truncate`` are applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from corral_server.runner.api.llama_server.rerank_prompt import rerank_inputs
from corral_server.runner.api.request_body import RequestFields, read_fields
from corral_server.runner.api.response import ApiResponse
from corral_server.runner.api.shared_fields import optional_model_name
from corral_server.runner.lifecycle.state import RunnerState
from corral_server.runner.memory.budget import current_reservation
from corral_server.wire import headers
from corral_server.wire.errors import ApiError
from corral_server.wire.json_encoding import compact_json

RERANK_PATHS = ("/v1/rerank", "/v2/rerank", "/v1/reranking", "/rerank", "/reranking")
"""The first is Jina's and Cohere's, the second that of Cohere's newer clients; llama.cpp's server has the others."""

RESULT_BYTES = 600
"""One result: its input, its score and their objects and JSON."""

_NO_RANKING = (
    '"{}" does not support reranking: name a Model whose weights are a reranker (a GGUF with a pooling_type of 4 and a '
    "classification head)"
)
_NO_DOCUMENTS = '"documents" must be a non-empty array of strings, or of objects with a "text"'


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """A checked request. ``top_n`` is the number of results. ``is_plain``: the response is an array of scores."""

    path: str
    model: str
    query: str
    documents: tuple[str, ...]
    top_n: int
    truncate: bool
    returns_text: bool
    is_plain: bool


class RerankEndpoint:
    """The endpoint of one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def rerank(self, request: Request) -> Response:
        fields = await read_fields(request, "RerankRequest", package="llama")
        job = _parse(fields, request.url.path, model=optional_model_name(fields, self._state))
        if "rerank" not in self._state.require_loaded().metadata.capabilities:
            raise ApiError(501, _NO_RANKING.format(job.model))
        return RerankResponse(self._state, job)


class RerankResponse(ApiResponse):
    """Scores the documents of one request, in the batches of embedding requests, and sends the results."""

    def __init__(self, state: RunnerState, job: RerankRequest) -> None:
        super().__init__(state, job.path)
        self._job = job

    async def _respond(self, send: Send) -> None:
        job, reservation = self._job, current_reservation()
        with self._state.active_request(None) as loaded:
            returned = sum(map(len, job.documents)) if job.returns_text else 0
            reservation.grow(RESULT_BYTES * len(job.documents) + 2 * returned)
            inputs = await asyncio.to_thread(
                partial(
                    rerank_inputs,
                    loaded.engine,
                    job.query,
                    job.documents,
                    truncate=job.truncate,
                    reserve=reservation.grow,
                )
            )
            vectors = await loaded.engine.embed(inputs, loaded.adapter_of(job.model))
            tokens = sum(map(len, inputs))
            body = await asyncio.to_thread(_encode, job, [vector[0] for vector in vectors], tokens=tokens)
            await self._send_whole(body, send, (headers.PROMPT_TOKENS, b"%d" % tokens))


def _parse(fields: RequestFields, path: str, *, model: str) -> RerankRequest:
    """Raises ApiError 400."""
    if "query" not in fields:
        raise ApiError(400, '"query" must be provided')
    is_plain = "documents" not in fields and "texts" in fields
    documents = _documents(fields, "texts" if is_plain else "documents")
    top_n = fields.integer("top_n")
    if top_n is not None and top_n < 1:
        raise ApiError(400, '"top_n" must be at least 1')
    return RerankRequest(
        path,
        model,
        fields.string("query"),
        documents,
        top_n=len(documents) if top_n is None else top_n,
        truncate=fields.boolean("truncate") is not False,
        returns_text=fields.boolean("return_text" if is_plain else "return_documents") or False,
        is_plain=is_plain,
    )


def _documents(fields: RequestFields, name: str) -> tuple[str, ...]:
    values = fields.value(name)
    items = values if isinstance(values, list) else []
    texts = [item.get("text") if isinstance(item, dict) else item for item in items]
    documents = tuple(text for text in texts if isinstance(text, str))
    if not documents or len(documents) != len(items):
        raise ApiError(400, _NO_DOCUMENTS)
    return documents


def _encode(job: RerankRequest, scores: Sequence[float], *, tokens: int) -> bytes:
    """Encode the ``top_n`` highest scores, equal ones in the order of the request. The usage is last."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: job.top_n]
    results = [_result(job, index, scores[index]) for index in order]
    if job.is_plain:
        return compact_json(results).encode()
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return compact_json({"model": job.model, "object": "list", "results": results, "usage": usage}).encode()


def _result(job: RerankRequest, index: int, score: float) -> dict[str, object]:
    result: dict[str, object] = {
        "index": index,
        "score" if job.is_plain else "relevance_score": float(f"{score:.9g}"),
    }
    if job.returns_text:
        text = job.documents[index]
        result |= {"text": text} if job.is_plain else {"document": {"text": text}}
    return result
