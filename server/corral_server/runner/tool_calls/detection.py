"""Detection of a model's format from the markers in its chat template, as in llama.cpp's ``common/chat.cpp``."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from corral_server.runner.sampling.grammar import CallFrame, Grammar
from corral_server.runner.sampling.lark import tool_call_grammar
from corral_server.runner.tool_calls.calls import ModelFormat, ParserConfig
from corral_server.runner.tool_calls.families.deepseek import OPEN as DEEPSEEK
from corral_server.runner.tool_calls.families.deepseek import deepseek
from corral_server.runner.tool_calls.families.glm import GLM
from corral_server.runner.tool_calls.families.harmony import HARMONY
from corral_server.runner.tool_calls.families.hermes import HERMES
from corral_server.runner.tool_calls.families.kimi import KIMI
from corral_server.runner.tool_calls.families.kimi import OPEN as KIMI_OPEN
from corral_server.runner.tool_calls.families.lfm2 import LFM2
from corral_server.runner.tool_calls.families.lfm2 import OPEN as LFM2_OPEN
from corral_server.runner.tool_calls.families.llama3 import LLAMA3
from corral_server.runner.tool_calls.families.minimax import MINIMAX
from corral_server.runner.tool_calls.families.minimax import OPEN as MINIMAX_OPEN
from corral_server.runner.tool_calls.families.mistral import mistral
from corral_server.runner.tool_calls.families.qwen_coder import QWEN_CODER
from corral_server.runner.tool_calls.families.small_families import (
    COMMAND,
    GENERIC,
    GRANITE,
    INTERN,
    JAMBA,
    NEMOTRON,
    PHI4,
)
from corral_server.runner.tool_calls.tool import tool_name, tool_parameters

_FAMILIES: tuple[tuple[str, Callable[[str], ModelFormat]], ...] = (
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
"""The first marker that the template contains decides."""


@lru_cache(maxsize=16)
def detect_format(template: str) -> ModelFormat:
    return next((make(template) for marker, make in _FAMILIES if marker in template), GENERIC)


def forced_call_grammar(template: str, config: ParserConfig) -> Grammar:
    """Return the grammar of an answer that is a call of one of the tools. Raises InvalidGrammar."""
    model_format = detect_format(template)
    frames = []
    for tool in config.tools:
        before, after = model_format.call_frame(tool_name(tool))
        frames.append(CallFrame(before, tool_parameters(tool), after))
    return tool_call_grammar(frames, preamble=model_format.call_preamble(config), markers=model_format.markers)
