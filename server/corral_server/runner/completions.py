"""``/v1/completions``: OpenAI's old API in terms of ``/api/generate``, as Ollama's compatibility layer does it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from corral_server.runner import capabilities
from corral_server.runner.answer import JSON, GenerationAnswer, started_at
from corral_server.runner.common import Common
from corral_server.runner.completion_writer import CompletionWriter
from corral_server.runner.native import Generate
from corral_server.runner.openai import options_of
from corral_server.runner.openai_writer import EVENTS
from corral_server.runner.requests import MISSING_BODY_OPENAI, Fields, go_type, parse_body, read_body
from corral_server.runner.state import RunnerState
from corral_server.wire.errors import ApiError

COMPLETIONS = "/v1/completions"


class CompletionsApi:
    """The endpoint over one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def complete(self, request: Request) -> Response:
        started = started_at(request.headers)
        fields = parse_body(
            await read_body(request), kind="CompletionRequest", package="openai", missing=MISSING_BODY_OPENAI
        )
        common, asked = _common(fields), Generate(prompt=fields.text("prompt"), suffix=fields.text("suffix"))
        usage = fields.sub("stream_options", "StreamOptions").flag("include_usage") or False
        if not common.model:
            raise ApiError(404, "model '' not found")
        capabilities.check_name(common.model)
        asked.check(common.model)
        loaded = self._state.serving()
        asked.check_able(loaded, common)
        writer = CompletionWriter(common.model, include_usage=usage)
        work = asked.work(loaded, common, path=COMPLETIONS, started=started, writer=writer)
        return GenerationAnswer(self._state, work) if asked.prompt else self._load(common, writer)

    def _load(self, common: Common, writer: CompletionWriter) -> Response:
        """Without a prompt the model is only loaded."""
        with self._state.request(None):
            media_type = EVENTS if common.stream else JSON
            return Response(writer.loaded(stream=common.stream), media_type=media_type.decode())


def _common(fields: Fields) -> Common:
    """``logprobs`` is how many likely tokens are told beside each one; Ollama takes 0 for none at all."""
    for item in fields.items("stop") if isinstance(fields.raw("stop"), list) else ():
        if not isinstance(item, str):
            raise ApiError(400, f"invalid type for 'stop' field: {go_type(item)}")
    top = fields.integer("logprobs") or 0
    if top > capabilities.MAX_LOGPROBS:
        raise ApiError(400, f"top_logprobs must be between 0 and {capabilities.MAX_LOGPROBS}")
    return Common(
        model=fields.text("model"),
        stream=fields.flag("stream") or False,
        options=options_of(fields),
        logprobs=top > 0,
        top_logprobs=max(0, top),
    )
