"""Paths that are forwarded to a runner, and their errors for a missing or unknown model.

The error texts are Ollama's for each path; clients match on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corral_server.wire.errors import LLAMA_SERVER_PATHS, ApiError
from corral_server.wire.event_stream import EVENT_STREAM, JSON_LINES

_UNKNOWN = "model '{}' not found"
_TRY_PULLING = 'model "{}" not found, try pulling it first'
_REQUIRED = (400, "model is required")
_EMPTY_NAME = (404, "model '' not found")
_SEVERAL_MODELS = (400, "model is required, because not exactly one model is served here")


@dataclass(frozen=True, slots=True)
class Api:
    """``kind`` is the Go type in error texts; ``unknown`` has ``{}`` in the place of the name.

    With ``defaults_to_only_model`` a request without a name is for the only Model that its client sees, as clients of
    llama.cpp's server name none. ``stream_type`` is the media type of its streams, empty if it has none.
    """

    path: str
    kind: str
    missing: tuple[int, str]
    unknown: str
    defaults_to_only_model: bool = False
    stream_type: bytes = b""

    @property
    def go_type(self) -> str:
        """``kind`` with its package in Ollama."""
        if not self.path.startswith("/v1/"):
            return f"api.{self.kind}"
        return f"{'anthropic' if self.path.startswith('/v1/messages') else 'openai'}.{self.kind}"

    @property
    def empty_body(self) -> str:
        """Error text for a request without a body."""
        native = not self.path.startswith("/v1/") or self.path == "/v1/responses"
        return "missing request body" if native else "EOF"

    def missing_model(self, data: Mapping[str, object]) -> ApiError:
        """Return the error for a body without ``model``."""
        if self.path == "/v1/embeddings" and data.get("input") in (None, []):
            return ApiError(400, "invalid input")
        if self.path == "/v1/chat/completions" and data.get("messages") in (None, []):
            return ApiError(400, "[] is too short - 'messages'")
        return ApiError(*self.missing)


APIS: dict[str, Api] = {
    api.path: api
    for api in (
        Api("/api/generate", "GenerateRequest", _EMPTY_NAME, _UNKNOWN, stream_type=JSON_LINES),
        Api("/api/chat", "ChatRequest", _REQUIRED, _UNKNOWN, stream_type=JSON_LINES),
        Api("/api/embed", "EmbedRequest", _EMPTY_NAME, _TRY_PULLING),
        Api("/api/embeddings", "EmbeddingRequest", _REQUIRED, _TRY_PULLING),
        Api("/v1/chat/completions", "ChatCompletionRequest", _REQUIRED, _UNKNOWN, stream_type=EVENT_STREAM),
        Api("/v1/completions", "CompletionRequest", _EMPTY_NAME, _UNKNOWN, stream_type=EVENT_STREAM),
        Api("/v1/embeddings", "EmbedRequest", _EMPTY_NAME, _TRY_PULLING),
        Api("/v1/responses", "ResponsesRequest", _REQUIRED, _UNKNOWN, stream_type=EVENT_STREAM),
        Api("/v1/messages", "MessagesRequest", _REQUIRED, _UNKNOWN, stream_type=EVENT_STREAM),
        Api("/v1/messages/count_tokens", "CountTokensRequest", _REQUIRED, _UNKNOWN),
        *(
            Api(
                path,
                "Request",
                _SEVERAL_MODELS,
                _UNKNOWN,
                defaults_to_only_model=True,
                stream_type=EVENT_STREAM if path == "/infill" else b"",
            )
            for path in sorted(LLAMA_SERVER_PATHS)
        ),
    )
}
SHOW = Api("/api/show", "ShowRequest", _REQUIRED, _UNKNOWN)
