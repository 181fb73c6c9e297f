"""Errors as each API writes them, chosen by the path that was called.

Native paths answer ``{"error": text}``, OpenAI's an ``error`` object with Ollama's types, Anthropic's a typed envelope.
"""

from __future__ import annotations

import json
import secrets

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
    """A request that is answered with an error; ``message`` is the literal text clients match on.

    ``retry_after`` is in how many seconds the client had better come again, None when nobody can tell.
    """

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


def error_object(path: str, status: int, message: str) -> dict[str, object]:
    """The JSON object that the API at ``path`` uses for an error."""
    if path == "/v1/messages":
        kind = _ANTHROPIC_TYPES.get(status, "api_error")
        request_id = f"req_{secrets.token_hex(12)}"
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
    if path.startswith("/v1/"):
        kind = _OPENAI_TYPES.get(status, "api_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return {"error": message}


def error_body(path: str, status: int, message: str) -> bytes:
    """``error_object`` as JSON bytes."""
    return json.dumps(error_object(path, status, message), ensure_ascii=False, separators=(",", ":")).encode()


def stream_error(path: str, message: str) -> bytes:
    """What ends a stream that has begun: a last line (native) or event (OpenAI, Anthropic) that names the error."""
    body = error_body(path, 500, message)
    if path == "/v1/messages":
        return b"event: error\ndata: " + body + b"\n\n"
    if path.startswith("/v1/"):
        return b"data: " + body + b"\n\n"
    return body + b"\n"
