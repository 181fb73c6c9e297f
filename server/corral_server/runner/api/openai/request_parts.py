"""Fields that several of OpenAI's endpoints have in common, mapped to options and settings of Ollama's API.

Source: Ollama's ``openai/openai.go``, except ``tool_choice`` and ``max_completion_tokens``, which Ollama ignores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from corral_server.runner.api.request_body import RequestFields
from corral_server.runner.chat import capabilities
from corral_server.runner.chat.capabilities import ThinkSetting
from corral_server.runner.chat.chat_request import ChatRequest, check_chat_capabilities
from corral_server.runner.chat.generation_request import GenerationRequest
from corral_server.runner.chat.loaded_model import LoadedModel
from corral_server.runner.lifecycle.state import RunnerState
from corral_server.runner.templates.templates import Message
from corral_server.runner.tool_calls.tool import AUTO_TOOL_CHOICE, Tool, ToolChoice, tool_name
from corral_server.wire.errors import ApiError

_INTEGER_OPTIONS = {"seed": "seed", "max_tokens": "num_predict"}
_NUMBER_OPTIONS = ("frequency_penalty", "presence_penalty")
_REASONING_EFFORTS: Mapping[str, ThinkSetting] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "max": "max",
    "ultra": "max",
}


def sampling_options(fields: RequestFields) -> dict[str, object]:
    """Map OpenAI's sampling fields to Ollama options.

    ``temperature`` and ``top_p`` default to 1 and not to the Model's parameters, as in Ollama's ``openai/openai.go``.
    """
    options: dict[str, object] = {option: fields.integer(name) for name, option in _INTEGER_OPTIONS.items()}
    if options["num_predict"] is None:
        options["num_predict"] = fields.integer("max_completion_tokens")
    options |= {name: fields.number(name) for name in _NUMBER_OPTIONS}
    for name in ("temperature", "top_p"):
        value = fields.number(name)
        options[name] = 1.0 if value is None else value
    stop = fields.value("stop")
    if isinstance(stop, str):
        options["stop"] = [stop]
    elif isinstance(stop, list):
        options["stop"] = [item for item in stop if isinstance(item, str)]
    return options


def parse_reasoning_effort(effort: str) -> ThinkSetting:
    """Map OpenAI's reasoning effort to Ollama's ``think``. Raises ApiError 400 for an unknown effort."""
    if not effort:
        return None
    if effort not in _REASONING_EFFORTS:
        allowed = '"minimal", "low", "medium", "high", "xhigh", "ultra", "max", or "none"'
        raise ApiError(400, f'invalid reasoning value: "{effort}" (must be {allowed})')
    return _REASONING_EFFORTS[effort]


def checked_chat(
    state: RunnerState,
    fields: RequestFields,
    generation: GenerationRequest,
    *,
    messages: Sequence[Message],
    tools: Sequence[Tool],
    without_messages: str,
) -> tuple[ChatRequest, LoadedModel]:
    """Return the chat of a request and the model that can answer it, after Ollama's checks in Ollama's order.

    ``without_messages`` is the error text for a request without messages. Raises ApiError.
    """
    chat = ChatRequest(generation, messages, tools, parse_tool_choice(fields, tools))
    if not generation.model:
        raise ApiError(400, "model is required")
    capabilities.check_model_name(generation.model)
    if not messages:
        raise ApiError(400, without_messages)
    loaded = state.require_loaded()
    check_chat_capabilities(chat, loaded)
    return chat, loaded


def parse_include_usage(fields: RequestFields) -> bool:
    """Parse ``stream_options.include_usage``."""
    return fields.nested("stream_options", "StreamOptions").boolean("include_usage") or False


def parse_tool_choice(fields: RequestFields, tools: Sequence[Tool]) -> ToolChoice:
    """Parse ``tool_choice``: a string, or an object that names a function. Raises ApiError 400."""
    value = fields.value("tool_choice")
    if value is None or value == "auto" or not tools:
        return AUTO_TOOL_CHOICE
    if value == "none":
        return ToolChoice(none=True)
    if value == "required":
        return ToolChoice(must_call=True)
    name = _function_name(value)
    if name and any(tool_name(tool) == name for tool in tools):
        return ToolChoice(must_call=True, name=name)
    raise ApiError(400, 'invalid tool_choice (must be "none", "auto", "required", or name one of the tools)')


def _function_name(value: object) -> str:
    """Chats have ``{"type": "function", "function": {"name"}}``, responses ``{"type": "function", "name"}``."""
    if not isinstance(value, Mapping):
        return ""
    function = value.get("function", value)
    return str(function.get("name", "")) if isinstance(function, Mapping) else ""


def parse_arguments(text: str, error: str) -> dict[str, object]:
    """Parse the arguments of a tool call, a JSON object as text. Raises ApiError 400 with the text ``error``."""
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise ApiError(400, error)
    return arguments
