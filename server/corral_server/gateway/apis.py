"""The paths that go to a runner, and what each of them says when the model is missing or unknown.

The texts are Ollama's, path by path; clients match on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corral_server.wire.errors import ApiError

_UNKNOWN = "model '{}' not found"
_TRY_PULLING = 'model "{}" not found, try pulling it first'
_REQUIRED = (400, "model is required")
_EMPTY_NAME = (404, "model '' not found")


@dataclass(frozen=True, slots=True)
class Api:
    """``kind`` is the type in Go's error texts; ``unknown`` has ``{}`` where the name goes."""

    path: str
    kind: str
    missing: tuple[int, str]
    unknown: str

    @property
    def empty_body(self) -> str:
        """The text for a request without a body."""
        return "EOF" if self.path.startswith("/v1/") else "missing request body"

    def missing_model(self, data: Mapping[str, object]) -> ApiError:
        """The error for a body without ``model``."""
        if self.path == "/v1/embeddings" and data.get("input") in (None, []):
            return ApiError(400, "invalid input")
        if self.path == "/v1/chat/completions" and data.get("messages") in (None, []):
            return ApiError(400, "[] is too short - 'messages'")
        return ApiError(*self.missing)


APIS: dict[str, Api] = {
    api.path: api
    for api in (
        Api("/api/generate", "GenerateRequest", _EMPTY_NAME, _UNKNOWN),
        Api("/api/chat", "ChatRequest", _REQUIRED, _UNKNOWN),
        Api("/api/embed", "EmbedRequest", _EMPTY_NAME, _TRY_PULLING),
        Api("/api/embeddings", "EmbeddingRequest", _REQUIRED, _TRY_PULLING),
        Api("/v1/chat/completions", "ChatCompletionRequest", _REQUIRED, _UNKNOWN),
        Api("/v1/completions", "CompletionRequest", _EMPTY_NAME, _UNKNOWN),
        Api("/v1/embeddings", "EmbedRequest", _EMPTY_NAME, _TRY_PULLING),
        Api("/v1/responses", "ResponsesRequest", _REQUIRED, _UNKNOWN),
        Api("/v1/messages", "MessagesRequest", _REQUIRED, _UNKNOWN),
    )
}
SHOW = Api("/api/show", "ShowRequest", _REQUIRED, _UNKNOWN)
