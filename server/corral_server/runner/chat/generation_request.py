"""Fields that generation requests of all APIs have in common, and their conversion to a task of the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from corral_server.runner.chat.capabilities import ThinkSetting
from corral_server.runner.chat.loaded_model import LoadedModel
from corral_server.runner.chat.options import GenerationOptions
from corral_server.runner.chat.prompt import marker_tokens
from corral_server.runner.chat.response_format import answer_schema
from corral_server.runner.engine.cache.context_shift import TOO_LONG
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.engine.prepared_image import PreparedImage
from corral_server.runner.llama.errors import PromptTooLong
from corral_server.runner.sampling.grammar import Grammar
from corral_server.runner.sampling.lark import json_grammar
from corral_server.runner.tool_calls.calls import ParserConfig
from corral_server.runner.tool_calls.detection import detect_format, forced_call_grammar

PROMPT_TAIL_CHARACTERS = 100
"""Number of characters at the end of a prompt that are searched for an opening tag; longer than any tag."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """The fields of a generation request that do not depend on its API.

    ``keep_alive`` is in seconds, None when unset. ``response_format`` is Ollama's ``format``: ``"json"`` or a JSON
    Schema.
    """

    model: str
    stream: bool
    keep_alive: float | None = None
    think: ThinkSetting = None
    truncate: bool = True
    shift: bool = True
    response_format: object = None
    options: Mapping[str, object] = field(default_factory=dict)
    logprobs: bool = False
    top_logprobs: int = 0


def build_task(
    loaded: LoadedModel,
    tokens: Sequence[int],
    request: GenerationRequest,
    *,
    options: GenerationOptions,
    parser_config: ParserConfig | None = None,
    must_call: bool = False,
    images: tuple[PreparedImage, ...] = (),
) -> GenerationTask:
    """Build the engine's task from the tokens of the prompt, which has the cells of the ``images``.

    ``parser_config`` configures the output parser; None returns the output unparsed. With ``must_call`` the grammar
    forces a tool call. Raises PromptTooLong, InvalidGrammar and ApiError.
    """
    context_length = loaded.context_length(options)
    if not request.truncate and len(tokens) >= context_length:
        raise PromptTooLong(TOO_LONG)
    template = loaded.template.source
    markers = detect_format(template).markers if parser_config is not None else ()
    return GenerationTask(
        prompt=tuple(tokens),
        sampling=options.sampling,
        grammar=_grammar(template, request, parser_config, must_call=must_call),
        stop=options.stop,
        max_tokens=options.num_predict if options.num_predict > 0 else -1,
        keep=options.num_keep,
        context_length=context_length,
        context_shift=request.shift,
        logprobs=request.logprobs,
        top_logprobs=request.top_logprobs if request.logprobs else 0,
        visible_control_tokens=marker_tokens(loaded.engine, markers),
        adapter=loaded.adapter_of(request.model),
        images=images,
    )


def _grammar(
    template: str, request: GenerationRequest, parser_config: ParserConfig | None, *, must_call: bool
) -> Grammar | None:
    if parser_config is not None and must_call:
        return forced_call_grammar(template, parser_config)
    schema = answer_schema(request.response_format)
    if schema is None or parser_config is None:
        return None if schema is None else json_grammar(schema)
    model_format = detect_format(template)
    return json_grammar(schema, preamble=model_format.answer_preamble(parser_config), markers=model_format.markers)


def thinking_variables(think: ThinkSetting, *, thinks: bool) -> dict[str, object]:
    """Return the template variables for ``think``. Unset means on for a model with the thinking capability.

    Most templates read ``enable_thinking`` or ``thinking``; some read the level in ``reasoning_effort``.
    """
    if think is None and not thinks:
        return {}
    on = thinks if think is None else bool(think)
    variables: dict[str, object] = {"enable_thinking": on, "thinking": on}
    if isinstance(think, str):
        variables["reasoning_effort"] = "high" if think == "max" else think
    return variables
