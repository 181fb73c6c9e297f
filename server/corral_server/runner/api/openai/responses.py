"""Endpoint ``/v1/responses`` of OpenAI's API, mapped to a chat as in Ollama's ``openai/responses.go``.

It is stateless: ``previous_response_id`` and ``conversation`` are ignored.
"""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from corral_server.runner.api.generation import GenerationResponse, chat_job
from corral_server.runner.api.openai.request_parts import checked_chat, parse_reasoning_effort
from corral_server.runner.api.openai.responses_encoder import ResponsesEncoder
from corral_server.runner.api.openai.responses_input import parse_messages, parse_tools
from corral_server.runner.api.openai.responses_object import EchoedParameters
from corral_server.runner.api.request_body import RequestFields, read_fields
from corral_server.runner.api.response import request_start_ns
from corral_server.runner.chat.generation_request import GenerationRequest
from corral_server.runner.lifecycle.state import RunnerState

RESPONSES = "/v1/responses"


class ResponsesEndpoint:
    """The endpoint of one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def responses(self, request: Request) -> Response:
        requested_ns = request_start_ns(request.headers)
        fields = await read_fields(request, "ResponsesRequest", package="openai")
        chat, loaded = checked_chat(
            self._state,
            fields,
            _generation_request(fields),
            messages=parse_messages(fields),
            tools=parse_tools(fields),
            without_messages="input is required",
        )
        tokenize = partial(loaded.engine.tokenize, add_special=False, parse_special=False)
        parameters = EchoedParameters.from_fields(fields, chat.generation.options)
        encoder = ResponsesEncoder(parameters, lambda text: len(tokenize(text)))
        job = chat_job(RESPONSES, requested_ns, chat, loaded=loaded, encoder=encoder)
        return GenerationResponse(self._state, job)


def _generation_request(fields: RequestFields) -> GenerationRequest:
    text_format = fields.nested("text", "ResponsesText").nested("format", "ResponsesTextFormat")
    kind = text_format.string("type")
    temperature, top_p = fields.number("temperature"), fields.number("top_p")
    return GenerationRequest(
        model=fields.string("model"),
        stream=fields.boolean("stream") or False,
        think=parse_reasoning_effort(fields.nested("reasoning", "ResponsesReasoning").string("effort")),
        truncate=True,
        response_format=text_format.value("schema")
        if kind == "json_schema"
        else ("json" if kind == "json_object" else None),
        options={
            "temperature": 1.0 if temperature is None else temperature,
            "top_p": 1.0 if top_p is None else top_p,
            "num_predict": fields.integer("max_output_tokens"),
        },
    )
