"""``/v1/responses``: OpenAI's responses in terms of a chat. Nothing is kept: earlier responses are not looked up."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from corral_server.runner import capabilities
from corral_server.runner.answer import GenerationAnswer, started_at
from corral_server.runner.chat import Chat, chat_work, check_chat
from corral_server.runner.common import Common
from corral_server.runner.openai import think_of
from corral_server.runner.requests import MISSING_BODY_OPENAI, Fields, parse_body, read_body
from corral_server.runner.responses_input import messages_of, tools_of
from corral_server.runner.responses_object import Echo
from corral_server.runner.responses_writer import ResponsesWriter
from corral_server.runner.state import RunnerState
from corral_server.runner.tools import choice_of
from corral_server.wire.errors import ApiError

RESPONSES = "/v1/responses"


class ResponsesApi:
    """The endpoint over one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def responses(self, request: Request) -> Response:
        started = started_at(request.headers)
        fields = parse_body(
            await read_body(request), kind="ResponsesRequest", package="openai", missing=MISSING_BODY_OPENAI
        )
        model, messages, tools = fields.text("model"), messages_of(fields), tools_of(fields)
        common = _common(fields, model)
        chat = Chat(common, messages, tools, choice_of(fields.raw("tool_choice"), tools))
        if not model:
            raise ApiError(400, "model is required")
        capabilities.check_name(model)
        if not messages:
            raise ApiError(400, "input is required")
        loaded = self._state.serving()
        check_chat(chat, loaded)
        tokens = partial(loaded.engine.tokenize, add_special=False, parse_special=False)
        writer = ResponsesWriter(Echo.of(fields, common.options), lambda thought: len(tokens(thought)))
        return GenerationAnswer(self._state, chat_work(RESPONSES, started, chat, loaded=loaded, writer=writer))


def _common(fields: Fields, model: str) -> Common:
    wanted = fields.sub("text", "ResponsesText").sub("format", "ResponsesTextFormat")
    kind = wanted.text("type")
    temperature, top_p = fields.number("temperature"), fields.number("top_p")
    return Common(
        model=model,
        stream=fields.flag("stream") or False,
        think=think_of(fields.sub("reasoning", "ResponsesReasoning").text("effort")),
        truncate=True,
        wanted=wanted.raw("schema") if kind == "json_schema" else ("json" if kind == "json_object" else None),
        options={
            "temperature": 1.0 if temperature is None else temperature,
            "top_p": 1.0 if top_p is None else top_p,
            "num_predict": fields.integer("max_output_tokens"),
        },
    )
