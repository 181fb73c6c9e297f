"""Endpoints ``/v1/messages`` of Anthropic's API, mapped to a chat as in Ollama's ``anthropic/anthropic.go``, and
``/v1/messages/count_tokens``, which Ollama does not have.

The headers ``anthropic-version`` and ``x-api-key`` are ignored. ``thinking`` is ignored for a model without the
thinking capability, as in Ollama.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from corral_server.runner.api.anthropic.messages_encoder import MessagesEncoder
from corral_server.runner.api.anthropic.messages_input import parse_messages, parse_tool_choice, parse_tools
from corral_server.runner.api.generation import GenerationResponse, chat_job
from corral_server.runner.api.request_body import RequestFields, read_fields
from corral_server.runner.api.response import JSON_CONTENT_TYPE, request_start_ns
from corral_server.runner.api.shared_fields import TOKENIZED_BYTE
from corral_server.runner.chat import capabilities
from corral_server.runner.chat.capabilities import THINK_LEVELS, ThinkSetting
from corral_server.runner.chat.chat_request import ChatRequest, check_chat_capabilities, render_chat
from corral_server.runner.chat.generation_request import GenerationRequest
from corral_server.runner.chat.loaded_model import LoadedModel
from corral_server.runner.chat.prompt import count_tokens
from corral_server.runner.lifecycle.state import RunnerState
from corral_server.runner.memory.budget import current_reservation
from corral_server.wire.errors import ApiError
from corral_server.wire.json_encoding import compact_json

MESSAGES, COUNT_TOKENS = "/v1/messages", "/v1/messages/count_tokens"


class MessagesEndpoint:
    """Both endpoints of one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def messages(self, request: Request) -> Response:
        requested_ns = request_start_ns(request.headers)
        fields = await read_fields(request, "MessagesRequest", package="anthropic")
        chat, loaded = self._checked_chat(fields, needs_max_tokens=True)
        stop = [text for text in fields.array("stop_sequences") if isinstance(text, str)]
        encoder = MessagesEncoder(chat.generation.model, stop)
        return GenerationResponse(self._state, chat_job(MESSAGES, requested_ns, chat, loaded=loaded, encoder=encoder))

    async def count_tokens(self, request: Request) -> Response:
        """Return the tokens of the prompt that the same body has for ``/v1/messages``, without truncation."""
        fields = await read_fields(request, "CountTokensRequest", package="anthropic")
        chat, _ = self._checked_chat(fields, needs_max_tokens=False)
        chat = replace(chat, generation=replace(chat.generation, truncate=False))
        with self._state.active_request(None) as loaded:
            count = await asyncio.to_thread(_count_tokens, loaded, chat)
        return Response(compact_json({"input_tokens": count}), media_type=JSON_CONTENT_TYPE.decode())

    def _checked_chat(self, fields: RequestFields, *, needs_max_tokens: bool) -> tuple[ChatRequest, LoadedModel]:
        model = _required_model(fields, needs_max_tokens=needs_max_tokens)
        messages, tools = parse_messages(fields), parse_tools(fields)
        tool_choice, think = parse_tool_choice(fields, tools), _parse_thinking(fields)
        loaded = self._state.require_loaded()
        generation = GenerationRequest(
            model=model,
            stream=fields.boolean("stream") or False,
            think=think if "thinking" in loaded.metadata.capabilities else None,
            response_format=_response_format(fields),
            options=_sampling_options(fields),
        )
        chat = ChatRequest(generation, messages, tools, tool_choice)
        check_chat_capabilities(chat, loaded)
        return chat, loaded


def _count_tokens(loaded: LoadedModel, chat: ChatRequest) -> int:
    prompt = render_chat(loaded, loaded.options.merged(chat.generation.options), chat=chat)
    if prompt.images:
        return prompt.length
    current_reservation().grow(TOKENIZED_BYTE * len(prompt.text))
    return count_tokens(loaded.engine, prompt.text)


def _required_model(fields: RequestFields, *, needs_max_tokens: bool) -> str:
    """Return the model's name. Raises ApiError 400 when a required field is missing or the name is invalid."""
    model, max_tokens = fields.string("model"), fields.integer("max_tokens")
    if not model:
        raise ApiError(400, "model is required")
    if needs_max_tokens and (max_tokens is None or max_tokens <= 0):
        raise ApiError(400, "max_tokens is required and must be positive")
    if not fields.array("messages", "[]anthropic.MessageParam"):
        raise ApiError(400, "messages is required")
    capabilities.check_model_name(model)
    return model


def _sampling_options(fields: RequestFields) -> dict[str, object]:
    """Map the sampling fields to Ollama options. Unset ones keep the Model's parameters."""
    return {
        "num_predict": fields.integer("max_tokens"),
        "temperature": fields.number("temperature"),
        "top_p": fields.number("top_p"),
        "top_k": fields.integer("top_k"),
        "stop": fields.array("stop_sequences", "[]string") or None,
    }


def _parse_thinking(fields: RequestFields) -> ThinkSetting:
    """Map ``thinking``, or else the effort, to Ollama's ``think``. An unknown effort counts as unset."""
    kind = fields.nested("thinking", "ThinkingConfig").string("type")
    if kind in ("enabled", "disabled"):
        return kind == "enabled"
    effort = fields.nested("output_config", "OutputConfig").string("effort").strip().lower()
    return "high" if effort == "xhigh" else effort if effort in THINK_LEVELS else None


def _response_format(fields: RequestFields) -> object:
    output_format = fields.nested("output_config", "OutputConfig").nested("format", "OutputFormat")
    return output_format.value("schema") if output_format.string("type") == "json_schema" else None
