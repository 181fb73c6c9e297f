"""Endpoint ``/v1/completions`` of OpenAI's API, mapped to ``/api/generate`` as Ollama maps it.

Source: ``FromCompleteRequest`` in Ollama's ``openai/openai.go``.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from corral_server.runner.api.generation import GenerationResponse, completion_job
from corral_server.runner.api.openai.completion_encoder import CompletionEncoder
from corral_server.runner.api.openai.request_parts import parse_include_usage, sampling_options
from corral_server.runner.api.request_body import RequestFields, go_type_name, read_fields
from corral_server.runner.api.response import JSON_CONTENT_TYPE, request_start_ns
from corral_server.runner.api.shared_fields import MAX_LOGPROBS
from corral_server.runner.chat import capabilities
from corral_server.runner.chat.completion_request import (
    CompletionRequest,
    check_completion_capabilities,
    check_completion_fields,
)
from corral_server.runner.chat.generation_request import GenerationRequest
from corral_server.runner.lifecycle.state import RunnerState
from corral_server.wire.errors import ApiError
from corral_server.wire.event_stream import EVENT_STREAM

COMPLETIONS = "/v1/completions"


class CompletionsEndpoint:
    """The endpoint of one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def complete(self, request: Request) -> Response:
        requested_ns = request_start_ns(request.headers)
        fields = await read_fields(request, "CompletionRequest", package="openai")
        generation = _generation_request(fields)
        completion = CompletionRequest(generation, fields.string("prompt"), fields.string("suffix"))
        encoder = CompletionEncoder(generation.model, include_usage=parse_include_usage(fields))
        if not generation.model:
            raise ApiError(404, "model '' not found")
        capabilities.check_model_name(generation.model)
        check_completion_fields(completion)
        loaded = self._state.require_loaded()
        check_completion_capabilities(completion, loaded)
        job = completion_job(COMPLETIONS, requested_ns, completion, loaded=loaded, encoder=encoder)
        return GenerationResponse(self._state, job) if completion.prompt else self._load(generation, encoder)

    def _load(self, generation: GenerationRequest, encoder: CompletionEncoder) -> Response:
        """Answer a request without a prompt, which only loads the model."""
        with self._state.active_request(None):
            media_type = EVENT_STREAM if generation.stream else JSON_CONTENT_TYPE
            return Response(encoder.encode_load(stream=generation.stream), media_type=media_type.decode())


def _generation_request(fields: RequestFields) -> GenerationRequest:
    """``logprobs`` is the number of alternatives per token; 0 means no logprobs, as in Ollama."""
    for item in fields.array("stop") if isinstance(fields.value("stop"), list) else ():
        if not isinstance(item, str):
            raise ApiError(400, f"invalid type for 'stop' field: {go_type_name(item)}")
    top = fields.integer("logprobs") or 0
    if top > MAX_LOGPROBS:
        raise ApiError(400, f"top_logprobs must be between 0 and {MAX_LOGPROBS}")
    return GenerationRequest(
        model=fields.string("model"),
        stream=fields.boolean("stream") or False,
        options=sampling_options(fields),
        logprobs=top > 0,
        top_logprobs=max(0, top),
    )
