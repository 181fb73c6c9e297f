"""Error responses in the format of each API, selected by the path that was called.

Ollama's paths have ``{"error": text}``, OpenAI's an ``error`` object with Ollama's types (``NewError`` in Ollama's
``openai/openai.go``), Anthropic's a typed envelope (``NewError`` in ``anthropic/anthropic.go``), those of llama.cpp's
server OpenAI's object with the status (``format_error_response`` in its ``tools/server/server-common.cpp``).
"""

from __future__ import annotations

import secrets

from corral_server.wire.event_stream import server_sent_event
from corral_server.wire.json_encoding import compact_json

LLAMA_SERVER_PATHS = frozenset(
    ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking", "/v2/rerank", "/tokenize", "/detokenize", "/infill")
)
"""Paths of llama.cpp's server. Their errors have OpenAI's members, with the status as ``code``."""

QUEUE_FULL = "server busy, please try again.  maximum pending requests exceeded"
RUNNER_STOPPED = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
    "check ollama server logs for details"
)

_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_LLAMA_SERVER_TYPES = {
    **_OPENAI_TYPES,
    500: "server_error",
    501: "not_supported_error",
    503: "unavailable_error",
}
_ANTHROPIC_PATHS = frozenset(("/v1/messages", "/v1/messages/count_tokens"))
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class ApiError(Exception):
    """An error response; ``message`` is the literal text that clients match on.

    ``retry_after`` is the number of seconds after which the client should retry, None when there is no estimate.
    """

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


def error_object(path: str, status: int, message: str) -> dict[str, object]:
    """Return the JSON object of an error in the format of the API at ``path``.

    Of a 401 the ``ollama`` command prints ``status`` (``AuthorizationError`` in Ollama's ``api/types.go``).
    """
    if path in _ANTHROPIC_PATHS:
        kind = _ANTHROPIC_TYPES.get(status, "api_error")
        request_id = f"req_{secrets.token_hex(12)}"
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
    if path in LLAMA_SERVER_PATHS:
        kind = _LLAMA_SERVER_TYPES.get(status, "api_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": status}}
    if path.startswith("/v1/"):
        kind = _OPENAI_TYPES.get(status, "api_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return {"error": message, "status": message} if status == 401 else {"error": message}


def error_body(path: str, status: int, message: str) -> bytes:
    """Encode ``error_object`` as JSON."""
    return compact_json(error_object(path, status, message)).encode()


def stream_error(path: str, message: str, status: int = 500) -> bytes:
    """Encode an error that ends a started stream, with the type that ``status`` has in the API."""
    return stream_item(path, compact_json(error_object(path, status, message)), error=True)


def stream_item(path: str, data: str, *, error: bool) -> bytes:
    """Encode JSON without line breaks as a part of a stream: a line in Ollama's API, an event in the others."""
    if not path.startswith("/v1/") and path not in LLAMA_SERVER_PATHS:
        return data.encode() + b"\n"
    return server_sent_event(data, "error" if error and path in _ANTHROPIC_PATHS else "")
