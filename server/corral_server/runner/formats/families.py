"""Which format a model speaks, found from the markers in its chat template."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from corral_server.runner.formats.calls import Format, Wanted
from corral_server.runner.formats.deepseek import OPEN as DEEPSEEK
from corral_server.runner.formats.deepseek import deepseek
from corral_server.runner.formats.glm import GLM
from corral_server.runner.formats.harmony import HARMONY
from corral_server.runner.formats.hermes import HERMES
from corral_server.runner.formats.kimi import KIMI
from corral_server.runner.formats.kimi import OPEN as KIMI_OPEN
from corral_server.runner.formats.lfm2 import LFM2
from corral_server.runner.formats.lfm2 import OPEN as LFM2_OPEN
from corral_server.runner.formats.llama3 import LLAMA3
from corral_server.runner.formats.minimax import MINIMAX
from corral_server.runner.formats.minimax import OPEN as MINIMAX_OPEN
from corral_server.runner.formats.mistral import mistral
from corral_server.runner.formats.others import COMMAND, GENERIC, GRANITE, INTERN, JAMBA, NEMOTRON, PHI4
from corral_server.runner.formats.qwen_coder import QWEN_CODER
from corral_server.runner.grammar import framed_grammar
from corral_server.runner.tools import name_of, parameters_of

_FAMILIES: tuple[tuple[str, Callable[[str], Format]], ...] = (
    ("<|channel|>", lambda _: HARMONY),
    (DEEPSEEK, deepseek),
    ("[TOOL_CALLS]", mistral),
    ("<|START_ACTION|>", lambda _: COMMAND),
    (KIMI_OPEN, lambda _: KIMI),
    (MINIMAX_OPEN, lambda _: MINIMAX),
    (LFM2_OPEN, lambda _: LFM2),
    ("<function=", lambda _: QWEN_CODER),
    ("<arg_key>", lambda _: GLM),
    ("<tool_call>", lambda _: HERMES),
    ("<tool_calls>", lambda _: JAMBA),
    ("<TOOLCALL>", lambda _: NEMOTRON),
    ("<|action_start|>", lambda _: INTERN),
    ("<|/tool_call|>", lambda _: PHI4),
    ("<|tool_call|>", lambda _: GRANITE),
    ("<|python_tag|>", lambda _: LLAMA3),
    ("<|start_header_id|>", lambda _: LLAMA3),
)
"""The first marker that a template has decides."""


@lru_cache(maxsize=16)
def format_of(template: str) -> Format:
    return next((make(template) for marker, make in _FAMILIES if marker in template), GENERIC)


def calls_grammar(template: str, wanted: Wanted) -> str:
    """GBNF for an answer that is a call of one of the tools, after a thought where there is one.

    Raises InvalidGrammar when a tool's schema cannot be held.
    """
    form = format_of(template)
    parts = []
    for tool in wanted.tools:
        before, after = form.frame(name_of(tool))
        parts.append((before, parameters_of(tool), after))
    return framed_grammar(parts, lead=form.lead(wanted))
