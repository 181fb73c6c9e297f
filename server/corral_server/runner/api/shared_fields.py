"""Parsing of request fields that several APIs have in common."""

from __future__ import annotations

from corral_core.base.durations import keep_alive_from_json
from corral_core.base.errors import InvalidDuration
from corral_server.runner.api.request_body import RequestFields
from corral_server.runner.chat.capabilities import check_model_name
from corral_server.runner.chat.gateway_model_name import gateway_model_name
from corral_server.runner.images.encoded import EncodedImage
from corral_server.runner.lifecycle.state import RunnerState
from corral_server.runner.tool_calls.tool import Tool
from corral_server.wire.errors import ApiError

MAX_LOGPROBS = 20
TOKENIZED_BYTE = 64
"""A byte of a text that is tokenized as a whole: llama.cpp's copies, and a token in a list if it is one."""


def optional_model_name(fields: RequestFields, state: RunnerState) -> str:
    """Return the requested ``model``, which clients of llama.cpp's server leave out.

    Without it, it is the name by which the gateway found the Model, or else the Model's own. Raises ApiError 400 for an
    invalid name.
    """
    model = fields.string("model") or gateway_model_name.get() or state.name
    check_model_name(model)
    return model


_URL_IMAGE_ERROR = "image URLs are not currently supported, please use base64 encoded data instead"
_INVALID_IMAGE = "invalid image input"
_IMAGE_PREFIXES = (*(f"data:image/{kind};base64," for kind in ("jpeg", "jpg", "png", "webp")), "data:;base64,")


def parse_keep_alive(fields: RequestFields) -> float | None:
    """Return the keep_alive of an Ollama request in seconds, None when it is unset.

    Raises ApiError 400 with the texts of Go's ``time.ParseDuration`` and of Ollama's ``api.Duration``.
    """
    try:
        return keep_alive_from_json(fields.value("keep_alive"))
    except InvalidDuration as error:
        raise ApiError(400, str(error)) from error


def parse_top_logprobs(fields: RequestFields) -> int:
    """Parse ``top_logprobs``. Raises ApiError 400 when it is out of range, also when ``logprobs`` is false."""
    top = fields.integer("top_logprobs") or 0
    if not 0 <= top <= MAX_LOGPROBS:
        raise ApiError(400, f"top_logprobs must be between 0 and {MAX_LOGPROBS}")
    return top


def data_url_image(url: str) -> EncodedImage:
    """Return the image of a data URL. Raises ApiError 400 as ``decodeImageURL`` in Ollama's ``openai/openai.go``."""
    if url.startswith(("http://", "https://")):
        raise ApiError(400, _URL_IMAGE_ERROR)
    prefix = next((prefix for prefix in _IMAGE_PREFIXES if url.startswith(prefix)), None)
    if prefix is None:
        raise ApiError(400, _INVALID_IMAGE)
    return EncodedImage(url.removeprefix(prefix), _INVALID_IMAGE)


def parse_tools(fields: RequestFields) -> tuple[Tool, ...]:
    """Parse the ``tools`` of Ollama's and OpenAI's chat API. Raises ApiError 400 for a wrong type."""
    for tool in fields.objects("tools", "Tool"):
        tool.string("type")
        function = tool.nested("function", "ToolFunction")
        function.string("name")
        function.string("description")
        function.mapping("parameters")
    return tuple(tool for tool in fields.array("tools") if isinstance(tool, dict))
