"""Endpoints ``/api/generate`` and ``/api/chat`` of Ollama's API.

The checks have the order of ``GenerateHandler`` and ``ChatHandler`` in Ollama's ``server/routes.go``: types of the
body, model name, unload request, capabilities of the model, options.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from corral_server.runner.api.generation import GenerationResponse, chat_job, completion_job
from corral_server.runner.api.ollama.encoder import (
    ChatEncoder,
    GenerateEncoder,
    load_response,
    rendered_prompt_response,
)
from corral_server.runner.api.request_body import RequestFields, read_fields
from corral_server.runner.api.response import request_start_ns
from corral_server.runner.api.shared_fields import parse_keep_alive, parse_tools, parse_top_logprobs
from corral_server.runner.chat import capabilities
from corral_server.runner.chat.capabilities import THINK_LEVELS, ThinkSetting
from corral_server.runner.chat.chat_request import ChatRequest, check_chat_capabilities, render_chat
from corral_server.runner.chat.completion_request import (
    CompletionRequest,
    check_completion_capabilities,
    check_completion_fields,
    render_completion,
)
from corral_server.runner.chat.generation_request import GenerationRequest
from corral_server.runner.chat.loaded_model import LoadedModel
from corral_server.runner.chat.options import GenerationOptions
from corral_server.runner.chat.prompt_images import images_of
from corral_server.runner.images.encoded import EncodedImage, shown_prompt, text_with_images
from corral_server.runner.isolation.threads import run_at_low_priority
from corral_server.runner.lifecycle.state import RunnerState
from corral_server.runner.templates.templates import Message
from corral_server.wire import headers
from corral_server.wire.errors import ApiError

GENERATE, CHAT = "/api/generate", "/api/chat"

_Render = Callable[[LoadedModel, GenerationOptions], str]


class GenerationEndpoints:
    """Both endpoints of one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def generate(self, request: Request) -> Response:
        requested_ns = request_start_ns(request.headers)
        fields = await read_fields(request, "GenerateRequest")
        completion = _completion_request(fields)
        generation = completion.generation
        if not generation.model:
            raise ApiError(404, "model '' not found")
        capabilities.check_model_name(generation.model)
        if not completion.prompt and generation.keep_alive == 0:
            return self._unload(generation, GENERATE)
        check_completion_fields(completion)
        loaded = self._state.require_loaded()
        check_completion_capabilities(completion, loaded)
        if not completion.prompt:
            return self._load(generation, GENERATE, loaded)
        if fields.boolean("_debug_render_only"):
            return await self._render_only(
                generation,
                GENERATE,
                lambda loaded, _options: shown_prompt(render_completion(loaded, completion), completion.images),
                is_slow=bool(completion.template),
            )
        encoder = GenerateEncoder(generation.model, with_context=not completion.raw)
        job = completion_job(GENERATE, requested_ns, completion, loaded=loaded, encoder=encoder)
        return GenerationResponse(self._state, job)

    async def chat(self, request: Request) -> Response:
        requested_ns = request_start_ns(request.headers)
        fields = await read_fields(request, "ChatRequest")
        generation = _generation_request(fields)
        chat = ChatRequest(generation, _parse_messages(fields), parse_tools(fields))
        if not generation.model:
            raise ApiError(400, "model is required")
        capabilities.check_model_name(generation.model)
        if not chat.messages and generation.keep_alive == 0:
            return self._unload(generation, CHAT)
        loaded = self._state.require_loaded()
        check_chat_capabilities(chat, loaded)
        if not chat.messages:
            return self._load(generation, CHAT, loaded)
        if fields.boolean("_debug_render_only"):
            images = images_of(chat.messages)
            return await self._render_only(
                generation,
                CHAT,
                lambda loaded, options: shown_prompt(render_chat(loaded, options, chat=chat).text, images),
                is_slow=bool(images),
            )
        encoder = ChatEncoder(generation.model)
        job = chat_job(CHAT, requested_ns, chat, loaded=loaded, encoder=encoder)
        return GenerationResponse(self._state, job)

    async def _render_only(
        self,
        generation: GenerationRequest,
        path: str,
        render: _Render,
        *,
        is_slow: bool = False,
    ) -> Response:
        """Answer ``_debug_render_only``: the rendered prompt, without a generation."""
        with self._state.active_request(generation.keep_alive) as loaded:
            run = partial(render, loaded, loaded.options.merged(generation.options))
            text = await (run_at_low_priority(run) if is_slow else asyncio.to_thread(run))
        return rendered_prompt_response(generation.model, path == CHAT, prompt=text)

    def _load(self, generation: GenerationRequest, path: str, loaded: LoadedModel) -> Response:
        options = loaded.options.merged(generation.options)  # raises for invalid options, as a generation does
        with self._state.active_request(generation.keep_alive):
            response = load_response(generation.model, path == CHAT, reason="load")
        if length := self._state.short_contexts.record(loaded, options.num_ctx, model=self._state.name):
            response.headers[headers.CONTEXT_LENGTH.decode()] = str(length)
        return response

    def _unload(self, generation: GenerationRequest, path: str) -> Response:
        self._state.unload()
        return load_response(generation.model, path == CHAT, reason="unload")


def _completion_request(fields: RequestFields) -> CompletionRequest:
    return CompletionRequest(
        _generation_request(fields),
        prompt=fields.string("prompt"),
        suffix=fields.string("suffix"),
        system=fields.string("system"),
        template=fields.string("template"),
        context=tuple(fields.integers("context")),
        raw=fields.boolean("raw") or False,
        images=tuple(_parse_images(fields)),
    )


def _parse_messages(fields: RequestFields) -> list[Message]:
    """Convert the ``messages`` of a chat to the form that chat templates take. Raises ApiError 400 for a wrong type.

    ``Alias`` is the type in ``Message.UnmarshalJSON`` of Ollama's ``api/types.go``.
    """
    messages: list[Message] = []
    for item in fields.objects("messages", "Message", decoded_as="Alias"):
        images = _parse_images(item)
        content = text_with_images(item.string("content"), images)
        message: dict[str, object] = {"role": item.string("role").lower(), "content": content}
        for name in ("thinking", "tool_name", "tool_call_id"):
            if text := item.string(name):
                message[name] = text
        if images:
            message["images"] = images
        if calls := item.objects("tool_calls", "ToolCall"):
            message["tool_calls"] = [_tool_call(call) for call in calls]
        messages.append(message)
    return messages


def _parse_images(fields: RequestFields) -> list[EncodedImage]:
    return [EncodedImage(text) for text in fields.strings("images", "[]api.ImageData")]


def _generation_request(fields: RequestFields) -> GenerationRequest:
    stream, truncate, shift = (fields.boolean(name) for name in ("stream", "truncate", "shift"))
    return GenerationRequest(
        model=fields.string("model"),
        stream=stream is not False,
        keep_alive=parse_keep_alive(fields),
        think=_parse_think(fields),
        truncate=truncate is not False,
        shift=shift is not False,
        response_format=fields.value("format"),
        options=fields.mapping("options"),
        logprobs=fields.boolean("logprobs") or False,
        top_logprobs=parse_top_logprobs(fields),
    )


def _parse_think(fields: RequestFields) -> ThinkSetting:
    """Parse ``think``. Raises ApiError 400 with the texts of ``ThinkValue`` in Ollama's ``api/types.go``."""
    value = fields.value("think")
    if isinstance(value, bool) or value is None:
        return value
    if not isinstance(value, str):
        raise ApiError(400, 'think must be a boolean or string ("high", "medium", "low", "max", true, or false)')
    if value not in THINK_LEVELS:
        raise ApiError(400, f'invalid think value: "{value}" (must be "high", "medium", "low", "max", true, or false)')
    return value


def _tool_call(call: RequestFields) -> dict[str, object]:
    function = call.nested("function", "ToolCallFunction")
    return {
        "type": "function",
        "id": call.string("id"),
        "function": {"name": function.string("name"), "arguments": function.mapping("arguments")},
    }
