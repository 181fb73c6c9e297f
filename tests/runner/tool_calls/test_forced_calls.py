"""Forced tool calls: the grammar of each family, what may come before it, and calls of the real model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from corral_server.runner.chat.prompt import marker_tokens
from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.sampling.grammar import Grammar
from corral_server.runner.sampling.lark import json_grammar
from corral_server.runner.tool_calls.calls import ParserConfig
from corral_server.runner.tool_calls.detection import detect_format, forced_call_grammar
from corral_server.runner.tool_calls.families.deepseek import OPEN as DEEPSEEK
from corral_server.runner.tool_calls.families.harmony import HARMONY
from tests.runner.engines import GREEDY, answer, chat, weights
from tests.runner.tool_calls.transcripts import whole
from tests.support.vocabulary import admits

FAMILIES = {
    "hermes": "<tool_call>",
    "qwen-coder": "<function=",
    "mistral": "[TOOL_CALLS]",
    "mistral-named": "[TOOL_CALLS][ARGS]",
    "llama3": "<|python_tag|>",
    "deepseek-r1": DEEPSEEK + "```json",
    "deepseek-v3.1": DEEPSEEK,
    "harmony": "<|channel|>",
    "command": "<|START_ACTION|>",
    "phi4": "<|tool_call|><|/tool_call|>",
    "granite": "<|tool_call|>",
    "generic": "",
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["city", "days"],
            "$defs": {"city": {"enum": ["Paris", "Rome"]}},
        },
    },
}
TIME = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaEngine]:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=512, slots=1, threads=1))
    yield engine
    engine.close()


@pytest.mark.process
@pytest.mark.parametrize("family", FAMILIES)
def test_the_parser_reads_a_forced_call(engine: LlamaEngine, family: str) -> None:
    template = FAMILIES[family]
    grammar = forced_call_grammar(template, ParserConfig(False, [WEATHER]))
    shown = marker_tokens(engine, detect_format(template).markers)
    prompt = chat(engine, "What is the weather in Rome?")
    got = answer(engine, GenerationTask(prompt, GREEDY, grammar, max_tokens=250, visible_control_tokens=shown))
    (call,) = whole(template, got.text, thinks=False).calls
    assert call.name == "get_weather"
    assert call.arguments["city"] in ("Paris", "Rome")
    assert call.arguments["days"] in range(1, 10)


@pytest.mark.process
def test_the_model_calls_one_of_several_tools(engine: LlamaEngine) -> None:
    grammar = forced_call_grammar("<tool_call>", ParserConfig(False, [WEATHER, TIME]))
    got = answer(engine, GenerationTask(chat(engine, "What time is it?"), GREEDY, grammar, max_tokens=120))
    (call,) = whole("<tool_call>", got.text, thinks=False).calls
    assert call.name in ("get_weather", "get_time")


CALL = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'


@pytest.mark.parametrize(
    ("thinks", "prompt_end", "text", "admitted"),
    [
        (False, "", CALL, True),
        (False, "", f"<think>hm</think>{CALL}", False),
        (False, "", f"Sure. {CALL}", False),
        (True, "", CALL, True),
        (True, "", f"<think>\na < b, [b] </ > c\n</think>\n\n{CALL}", True),
        (True, "", f"<think>hm</think> Sure. {CALL}", False),
        (True, "", "<think>hm", False),
        (True, "<think>\n", f"hm</think>\n{CALL}", True),
        (True, "<think>\n", f"<tool_call></think>{CALL}", True),
    ],
)
def test_reasoning_may_precede_a_forced_call(thinks: bool, prompt_end: str, text: str, admitted: bool) -> None:
    assert admits(forced_call_grammar("<tool_call>", ParserConfig(thinks, [TIME], prompt_end)), text) is admitted


def test_markers_are_control_tokens_where_the_vocabulary_has_them() -> None:
    grammar = forced_call_grammar("[TOOL_CALLS]", ParserConfig(False, [TIME]))
    rest = '[{"name": "get_time", "arguments": {}}]'
    assert admits(grammar, "[TOOL_CALLS]", rest)
    assert not admits(grammar, "[TOOL_CALLS", "]" + rest)


ANSWER = ("<|channel|>", "final", "<|message|>", '{"a": 1}')
ANALYSIS = ("<|channel|>", "analysis", "<|message|>", "1 < 2", "<|end|>", "<|start|>", "assistant")


@pytest.mark.parametrize(
    ("prompt_end", "parts", "admitted"),
    [
        ("<|start|>assistant", ANSWER, True),
        ("<|start|>assistant", (*ANALYSIS, *ANSWER), True),
        ("<|start|>assistant", ('{"a": 1}',), False),
        ("<|start|>assistant<|channel|>final<|message|>", ('{"a": 1}',), True),
    ],
)
def test_a_harmony_answer_in_a_format_is_in_the_final_channel(
    prompt_end: str, parts: tuple[str, ...], admitted: bool
) -> None:
    preamble = HARMONY.answer_preamble(ParserConfig(True, (), prompt_end))
    grammar = json_grammar({"properties": {"a": {"const": 1}}}, preamble=preamble, markers=HARMONY.markers)
    assert admits(grammar, *parts) is admitted


@pytest.mark.process
def test_a_control_token_is_shown_where_it_is_asked_for(engine: LlamaEngine) -> None:
    mark = engine.tokenize("<|im_start|>", add_special=False, parse_special=True)
    task = GenerationTask(chat(engine, "Hi"), GREEDY, Grammar('start: marker_0 "x"', ("<|im_start|>",)), max_tokens=4)
    assert answer(engine, task).text == "x"
    shown = GenerationTask(task.prompt, GREEDY, task.grammar, max_tokens=4, visible_control_tokens=frozenset(mark))
    assert answer(engine, shown).text == "<|im_start|>x"
