"""Endpoint ``/infill``: fill-in-the-middle with the FIM tokens of the model, for editors such as llama.vim.

Source: ``post_infill`` in llama.cpp's ``tools/server/server-context.cpp``. Sampling fields are mapped to options; other
settings of llama.cpp's server, such as ``samplers``, ``n_indent`` and ``t_max_predict_ms``, are ignored.
"""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from corral_server.runner.api.generation import GenerationJob, GenerationResponse
from corral_server.runner.api.llama_server.infill_encoder import InfillEncoder
from corral_server.runner.api.llama_server.infill_prompt import ExtraFile, Infill, check_infill, infill_tokens
from corral_server.runner.api.request_body import RequestFields, read_fields
from corral_server.runner.api.response import request_start_ns
from corral_server.runner.api.shared_fields import optional_model_name
from corral_server.runner.chat import capabilities
from corral_server.runner.chat.generation_request import GenerationRequest, build_task
from corral_server.runner.chat.loaded_model import LoadedModel
from corral_server.runner.chat.output_parser import OutputParserConfig
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.lifecycle.state import RunnerState
from corral_server.wire.errors import ApiError

INFILL = "/infill"

_INTEGERS = {"n_predict": "num_predict", "top_k": "top_k", "repeat_last_n": "repeat_last_n", "seed": "seed"}
_NUMBERS = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
)


class InfillEndpoint:
    """The endpoint of one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def infill(self, request: Request) -> Response:
        requested_ns = request_start_ns(request.headers)
        fields = await read_fields(request, "InfillRequest", package="llama")
        model, infill, options = optional_model_name(fields, self._state), _parse(fields), _options(fields)
        loaded = self._state.require_loaded()
        capabilities.check_completion(loaded.metadata, model, "infill")
        check_infill(loaded.engine)
        generation = GenerationRequest(model, fields.boolean("stream") or False, shift=False, options=options)
        only_evaluates = options["num_predict"] == 0
        merged = loaded.options.merged(options)

        def make_task(loaded: LoadedModel) -> GenerationTask:
            output = 0 if only_evaluates else merged.num_predict if merged.num_predict > 0 else -1
            tokens = infill_tokens(loaded.engine, infill, output=output)
            task = build_task(loaded, tokens, generation, options=merged)
            return replace(task, max_tokens=1) if only_evaluates else task

        names = [name for name in fields.array("response_fields", "[]string") if isinstance(name, str)]
        encoder = InfillEncoder(model, names, shows_output=not only_evaluates)
        parser = OutputParserConfig()
        return GenerationResponse(
            self._state, GenerationJob(INFILL, requested_ns, None, generation.stream, make_task, encoder, parser)
        )


def _parse(fields: RequestFields) -> Infill:
    """Raises ApiError 400 with llama.cpp's texts."""
    for name in ("input_prefix", "input_suffix"):
        if name not in fields:
            raise ApiError(400, f'"{name}" is required')
    if not isinstance(fields.value("prompt"), str | None):
        raise ApiError(400, '"prompt" must be a string')
    return Infill(
        fields.string("input_prefix"),
        fields.string("input_suffix"),
        fields.string("prompt"),
        tuple(_extra(item) for item in fields.objects("input_extra", "InfillExtra")),
    )


def _extra(item: RequestFields) -> ExtraFile:
    if "text" not in item:
        raise ApiError(400, 'extra_context chunk must contain a "text" field with a string value')
    return ExtraFile(item.string("text"), item.string("filename", "tmp"))


def _options(fields: RequestFields) -> dict[str, object]:
    """Return the options of the request. An ``n_predict`` of 0 only evaluates the prompt, which stays in the cache."""
    options: dict[str, object] = {option: fields.integer(name) for name, option in _INTEGERS.items()}
    options |= {name: fields.number(name) for name in _NUMBERS}
    return options | {"stop": fields.array("stop", "[]string") or None}
