"""``/api/generate`` and ``/api/chat``: Ollama's own API.

Checks come in Ollama's order: the body's types, the name, the unload short-cut, what the model can do, the options.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from corral_core.durations import keep_alive_from_request
from corral_core.errors import InvalidDuration
from corral_server.runner import capabilities
from corral_server.runner.answer import GenerationAnswer, Work, started_at
from corral_server.runner.generation import PromptTooLong, Task
from corral_server.runner.native_writer import ChatWriter, GenerateWriter, loaded_answer
from corral_server.runner.options import Options
from corral_server.runner.prompt import chat_tokens, tokens_of
from corral_server.runner.reading import Reading
from corral_server.runner.requests import Fields, parse_body, read_body
from corral_server.runner.response_format import grammar_of
from corral_server.runner.state import Loaded, RunnerState
from corral_server.runner.templates import Message, TemplateFailed
from corral_server.runner.window import TOO_LONG
from corral_server.wire.errors import ApiError

GENERATE, CHAT = "/api/generate", "/api/chat"


@dataclass(frozen=True, slots=True)
class Common:
    """What both requests have. ``keep_alive`` is in seconds, None when the request brings none."""

    model: str
    stream: bool
    keep_alive: float | None
    think: bool | None
    truncate: bool
    shift: bool
    wanted: object
    options: Mapping[str, object]


class NativeApi:
    """The two endpoints over one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def generate(self, request: Request) -> Response:
        started = started_at(request.headers)
        fields = parse_body(await read_body(request), kind="GenerateRequest")
        common, asked = _common(fields), _Generate.read(fields)
        if not common.model:
            raise ApiError(404, "model '' not found")
        capabilities.check_name(common.model)
        if not asked.prompt and common.keep_alive == 0:
            return self._unload(common, GENERATE)
        asked.check(common.model)
        loaded = self._checked(common, fields, action="generate")
        options = loaded.options.updated(common.options)
        if not asked.prompt:
            return self._load(common, GENERATE)

        def prepare(loaded: Loaded) -> Task:
            return _task(loaded, asked.tokens(loaded, common), common, options=options)

        thinks = not asked.raw and capabilities.thinks(common.think, loaded.facts)
        writer = GenerateWriter(common.model, with_context=not asked.raw)
        reading = Reading("" if asked.raw else loaded.template.source, thinks=thinks)
        work = Work(GENERATE, started, common.keep_alive, common.stream, prepare, writer, reading)
        return GenerationAnswer(self._state, work)

    async def chat(self, request: Request) -> Response:
        started = started_at(request.headers)
        fields = parse_body(await read_body(request), kind="ChatRequest")
        common, messages = _common(fields), messages_of(fields)
        if not common.model:
            raise ApiError(400, "model is required")
        capabilities.check_name(common.model)
        if not messages and common.keep_alive == 0:
            return self._unload(common, CHAT)
        if fields.items("tools"):
            capabilities.refuse_tools(common.model)
        loaded = self._checked(common, fields, action="chat")
        if any(message.get("images") for message in messages):
            capabilities.refuse_images(common.model)
        options = loaded.options.updated(common.options)
        if not messages:
            return self._load(common, CHAT)

        def prepare(loaded: Loaded) -> Task:
            return chat_task(loaded, messages, common, options=options)

        reading = Reading(loaded.template.source, thinks=capabilities.thinks(common.think, loaded.facts))
        writer = ChatWriter(common.model)
        work = Work(CHAT, started, common.keep_alive, common.stream, prepare, writer, reading)
        return GenerationAnswer(self._state, work)

    def _checked(self, common: Common, fields: Fields, *, action: str) -> Loaded:
        """The loaded model, when it can do what is asked for. Raises NotServing before anything else is said."""
        loaded = self._state.serving()
        capabilities.check_completion(loaded.facts, common.model, action)
        capabilities.check_think(common.think, common.model, loaded.facts)
        capabilities.check_logprobs(fields, common.model)
        return loaded

    def _load(self, common: Common, path: str) -> Response:
        with self._state.request(common.keep_alive):
            return loaded_answer(common.model, path == CHAT, reason="load")

    def _unload(self, common: Common, path: str) -> Response:
        self._state.unload()
        return loaded_answer(common.model, path == CHAT, reason="unload")


@dataclass(frozen=True, slots=True)
class _Generate:
    """The fields that only ``/api/generate`` has."""

    prompt: str
    suffix: str
    system: str
    template: str
    context: tuple[int, ...]
    raw: bool
    images: bool

    @classmethod
    def read(cls, fields: Fields) -> _Generate:
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
        if self.suffix:
            capabilities.refuse_insert(model)
        if self.images:
            capabilities.refuse_images(model)

    def tokens(self, loaded: Loaded, common: Common) -> list[int]:
        engine = loaded.engine
        if self.raw:
            return tokens_of(engine, self.prompt)
        system = self.system or loaded.system
        messages: list[Message] = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": self.prompt})
        text = self._rendered(loaded, messages, common)
        if not self.context:
            return tokens_of(engine, text)
        return [*self.context, *engine.tokenize(text, add_special=False, parse_special=True)]

    def _rendered(self, loaded: Loaded, messages: list[Message], common: Common) -> str:
        variables = _variables(common.think)
        if not self.template:
            return loaded.template.render(messages, variables=variables)
        try:
            return loaded.template.with_source(self.template).render(messages, variables=variables)
        except TemplateFailed as error:
            raise TemplateFailed(str(error), clients_fault=True) from error


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


def chat_task(loaded: Loaded, messages: list[Message], common: Common, *, options: Options) -> Task:
    if loaded.system and messages[0].get("role") != "system":
        messages = [{"role": "system", "content": loaded.system}, *messages]
    variables = _variables(common.think)
    tokens = chat_tokens(loaded.engine, loaded.template, messages, truncate=common.truncate, variables=variables)
    return _task(loaded, tokens, common, options=options)


def _task(loaded: Loaded, tokens: list[int], common: Common, *, options: Options) -> Task:
    if not common.truncate and len(tokens) >= loaded.engine.context_length:
        raise PromptTooLong(TOO_LONG)
    return Task(
        prompt=tuple(tokens),
        sampling=options.sampling,
        grammar=grammar_of(common.wanted),
        stop=options.stop,
        max_tokens=options.num_predict if options.num_predict > 0 else -1,
        keep=options.num_keep,
        shift=common.shift,
    )


def _common(fields: Fields) -> Common:
    stream, truncate, shift = (fields.flag(name) for name in ("stream", "truncate", "shift"))
    try:
        keep_alive = keep_alive_from_request(fields.raw("keep_alive"))
    except InvalidDuration as error:
        raise ApiError(400, str(error)) from error
    return Common(
        model=fields.text("model"),
        stream=stream is not False,
        keep_alive=keep_alive,
        think=capabilities.think_of(fields),
        truncate=truncate is not False,
        shift=shift is not False,
        wanted=fields.raw("format"),
        options=fields.mapping("options"),
    )


def _variables(think: bool | None) -> dict[str, object]:
    return {} if think is None else {"enable_thinking": think}


def _tool_call(call: Fields) -> dict[str, object]:
    function = call.sub("function", "ToolCallFunction")
    return {
        "type": "function",
        "id": call.text("id"),
        "function": {"name": function.text("name"), "arguments": function.mapping("arguments")},
    }
