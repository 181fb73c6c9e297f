"""``/api/generate`` and ``/api/chat``: Ollama's own API.

Checks come in Ollama's order: the body's types, the name, the unload short-cut, what the model can do, the options.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from corral_server.runner import capabilities
from corral_server.runner.answer import GenerationAnswer, Work, Writer, started_at
from corral_server.runner.chat import Chat, chat_work, check_chat, prompt_of
from corral_server.runner.common import PROMPT_END, Common, task_of, think_variables
from corral_server.runner.formats.calls import Wanted
from corral_server.runner.generation import Task
from corral_server.runner.keepalive import keep_alive_of
from corral_server.runner.native_writer import ChatWriter, GenerateWriter, debug_answer, loaded_answer
from corral_server.runner.prompt import tokens_of
from corral_server.runner.reading import Reading
from corral_server.runner.requests import Fields, parse_body, read_body
from corral_server.runner.state import Loaded, RunnerState
from corral_server.runner.templates import Message, TemplateFailed
from corral_server.runner.tools import tools_of
from corral_server.wire.errors import ApiError

GENERATE, CHAT = "/api/generate", "/api/chat"


class NativeApi:
    """The two endpoints over one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def generate(self, request: Request) -> Response:
        started = started_at(request.headers)
        fields = parse_body(await read_body(request), kind="GenerateRequest")
        common, asked = _common(fields), Generate.read(fields)
        if not common.model:
            raise ApiError(404, "model '' not found")
        capabilities.check_name(common.model)
        if not asked.prompt and common.keep_alive == 0:
            return self._unload(common, GENERATE)
        asked.check(common.model)
        loaded = self._state.serving()
        asked.check_able(loaded, common)
        if not asked.prompt:
            return self._load(common, GENERATE, loaded)
        if fields.flag("_debug_render_only"):
            return await self._rendered(common, GENERATE, lambda loaded: asked.text(loaded, common))
        writer = GenerateWriter(common.model, with_context=not asked.raw)
        work = asked.work(loaded, common, path=GENERATE, started=started, writer=writer)
        return GenerationAnswer(self._state, work)

    async def chat(self, request: Request) -> Response:
        started = started_at(request.headers)
        fields = parse_body(await read_body(request), kind="ChatRequest")
        common = _common(fields)
        chat = Chat(common, messages_of(fields), tools_of(fields))
        if not common.model:
            raise ApiError(400, "model is required")
        capabilities.check_name(common.model)
        if not chat.messages and common.keep_alive == 0:
            return self._unload(common, CHAT)
        loaded = self._state.serving()
        check_chat(chat, loaded)
        if not chat.messages:
            return self._load(common, CHAT, loaded)
        if fields.flag("_debug_render_only"):
            return await self._rendered(common, CHAT, lambda loaded: prompt_of(loaded, chat).text)
        work = chat_work(CHAT, started, chat, loaded=loaded, writer=ChatWriter(common.model))
        return GenerationAnswer(self._state, work)

    async def _rendered(self, common: Common, path: str, render: Callable[[Loaded], str]) -> Response:
        """The prompt alone, as the engine would be given it."""
        with self._state.request(common.keep_alive) as loaded:
            text = await asyncio.to_thread(render, loaded)
        return debug_answer(common.model, path == CHAT, prompt=text)

    def _load(self, common: Common, path: str, loaded: Loaded) -> Response:
        loaded.options.updated(common.options)  # wrong ones are refused here too
        with self._state.request(common.keep_alive):
            return loaded_answer(common.model, path == CHAT, reason="load")

    def _unload(self, common: Common, path: str) -> Response:
        self._state.unload()
        return loaded_answer(common.model, path == CHAT, reason="unload")


@dataclass(frozen=True, slots=True)
class Generate:
    """What is to be completed; the fields that only ``/api/generate`` has."""

    prompt: str
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: tuple[int, ...] = ()
    raw: bool = False
    images: bool = False

    @classmethod
    def read(cls, fields: Fields) -> Generate:
        return cls(
            prompt=fields.text("prompt"),
            suffix=fields.text("suffix"),
            system=fields.text("system"),
            template=fields.text("template"),
            context=tuple(fields.integers("context")),
            raw=fields.flag("raw") or False,
            images=bool(fields.items("images", "[]api.ImageData")),
        )

    def check(self, model: str) -> None:
        if self.raw and (self.template or self.system or self.context):
            raise ApiError(400, "raw mode does not support template, system, or context")
        if self.images:
            capabilities.refuse_images(model)

    def check_able(self, loaded: Loaded, common: Common) -> None:
        """Raises ApiError 400 with Ollama's texts for what the model cannot do."""
        capabilities.check_completion(loaded.facts, common.model, "generate")
        if self.suffix:
            capabilities.check_insert(loaded.facts, common.model)
        capabilities.check_think(common.think, common.model, loaded.facts)

    def work(self, loaded: Loaded, common: Common, *, path: str, started: int, writer: Writer) -> Work:
        """What answers it. Raises ApiError for options of a wrong type."""
        options = loaded.options.updated(common.options)

        thinks = not self.raw and capabilities.thinks(common.think, loaded.facts)

        def prepare(loaded: Loaded) -> Task:
            text = self.text(loaded, common)
            wanted = None if self.raw else Wanted(thinks, (), text[-PROMPT_END:])
            return task_of(loaded, self._tokens(loaded, text), common, options=options, wanted=wanted)

        reading = Reading("" if self.raw else loaded.template.source, thinks=thinks)
        return Work(path, started, common.keep_alive, common.stream, prepare, writer, reading)

    def text(self, loaded: Loaded, common: Common) -> str:
        """The prompt, without the context that may come before it."""
        if self.raw:
            return self.prompt
        system = self.system or loaded.system
        messages: list[Message] = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": self.prompt})
        variables = think_variables(common.think, thinks=capabilities.thinks(common.think, loaded.facts))
        template = loaded.template.with_source(self.template) if self.template else loaded.template
        try:
            if self.suffix:
                return template.insert(self.prompt, self.suffix, variables)
            return template.render(messages, variables=variables)
        except TemplateFailed as error:
            raise TemplateFailed(str(error), clients_fault=error.clients_fault or bool(self.template)) from error

    def _tokens(self, loaded: Loaded, text: str) -> list[int]:
        if not self.context:
            return tokens_of(loaded.engine, text)
        return [*self.context, *loaded.engine.tokenize(text, add_special=False, parse_special=True)]


def messages_of(fields: Fields) -> list[Message]:
    """The messages of a chat as templates take them. Raises ApiError 400 for a wrong type."""
    messages: list[Message] = []
    for item in fields.objects("messages", "Message"):
        message: dict[str, object] = {"role": item.text("role").lower(), "content": item.text("content")}
        for name in ("thinking", "tool_name", "tool_call_id"):
            if text := item.text(name):
                message[name] = text
        if images := item.items("images", "[]api.ImageData"):
            message["images"] = images
        if calls := item.objects("tool_calls", "ToolCall"):
            message["tool_calls"] = [_tool_call(call) for call in calls]
        messages.append(message)
    return messages


def _common(fields: Fields) -> Common:
    stream, truncate, shift = (fields.flag(name) for name in ("stream", "truncate", "shift"))
    return Common(
        model=fields.text("model"),
        stream=stream is not False,
        keep_alive=keep_alive_of(fields),
        think=capabilities.think_of(fields),
        truncate=truncate is not False,
        shift=shift is not False,
        wanted=fields.raw("format"),
        options=fields.mapping("options"),
        logprobs=fields.flag("logprobs") or False,
        top_logprobs=capabilities.top_logprobs_of(fields),
    )


def _tool_call(call: Fields) -> dict[str, object]:
    function = call.sub("function", "ToolCallFunction")
    return {
        "type": "function",
        "id": call.text("id"),
        "function": {"name": function.text("name"), "arguments": function.mapping("arguments")},
    }
