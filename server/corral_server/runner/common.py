"""What every request for a generation has, whatever its API, and the task that it becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from corral_server.runner.capabilities import Think
from corral_server.runner.formats.calls import Wanted
from corral_server.runner.formats.families import calls_grammar, format_of
from corral_server.runner.generation import PromptTooLong, Task
from corral_server.runner.grammar import led
from corral_server.runner.options import Options
from corral_server.runner.prompt import marker_tokens
from corral_server.runner.response_format import grammar_of
from corral_server.runner.state import Loaded
from corral_server.runner.window import TOO_LONG

PROMPT_END = 100
"""Characters at the end of a prompt that surely hold an opening tag."""


@dataclass(frozen=True, slots=True)
class Common:
    """``keep_alive`` is in seconds, None when the request brings none; ``wanted`` is the native ``format``."""

    model: str
    stream: bool
    keep_alive: float | None = None
    think: Think = None
    truncate: bool = True
    shift: bool = True
    wanted: object = None
    options: Mapping[str, object] = field(default_factory=dict)
    logprobs: bool = False
    top_logprobs: int = 0


def task_of(
    loaded: Loaded,
    tokens: Sequence[int],
    common: Common,
    *,
    options: Options,
    wanted: Wanted | None = None,
    must_call: bool = False,
) -> Task:
    """``wanted`` is what is told apart in the answer; None leaves it as it comes. With ``must_call`` it is a call.

    Raises PromptTooLong, InvalidGrammar and ApiError.
    """
    if not common.truncate and len(tokens) >= loaded.engine.context_length:
        raise PromptTooLong(TOO_LONG)
    template = loaded.template.source
    grammar = calls_grammar(template, wanted) if wanted and must_call else grammar_of(common.wanted)
    shown = frozenset[int]()
    if wanted is not None:
        form = format_of(template)
        shown = marker_tokens(loaded.engine, form.markers)
        if grammar is not None and not must_call:
            grammar = led(grammar, form.answer_lead(wanted))
    return Task(
        prompt=tuple(tokens),
        sampling=options.sampling,
        grammar=grammar,
        stop=options.stop,
        max_tokens=options.num_predict if options.num_predict > 0 else -1,
        keep=options.num_keep,
        shift=common.shift,
        logprobs=common.logprobs,
        top_logprobs=common.top_logprobs if common.logprobs else 0,
        shown=shown,
        adapter=loaded.adapter_of(common.model),
    )


def think_variables(think: Think, *, thinks: bool) -> dict[str, object]:
    """What chat templates look at: most are told whether, some how much. Unset means on for a model that thinks."""
    if think is None and not thinks:
        return {}
    on = thinks if think is None else bool(think)
    variables: dict[str, object] = {"enable_thinking": on, "thinking": on}
    if isinstance(think, str):
        variables["reasoning_effort"] = "high" if think == "max" else think
    return variables
