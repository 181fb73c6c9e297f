"""Calls that must come, by grammars that the real model is held to, and marks that are control tokens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from corral_server.runner.engine import EngineOptions, LlamaEngine
from corral_server.runner.formats.calls import Wanted
from corral_server.runner.formats.deepseek import OPEN as DEEPSEEK
from corral_server.runner.formats.families import calls_grammar, format_of
from corral_server.runner.formats.harmony import HARMONY
from corral_server.runner.generation import Task
from corral_server.runner.grammar import led, schema_grammar
from corral_server.runner.prompt import marker_tokens
from tests.runner.engines import GREEDY, answer, chat, weights
from tests.runner.formats.transcripts import whole

pytestmark = pytest.mark.process

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


@pytest.mark.parametrize("family", FAMILIES)
def test_a_call_that_must_come_can_be_read(engine: LlamaEngine, family: str) -> None:
    template = FAMILIES[family]
    grammar = calls_grammar(template, Wanted(False, [WEATHER]))
    shown = marker_tokens(engine, format_of(template).markers)
    prompt = chat(engine, "What is the weather in Rome?")
    got = answer(engine, Task(prompt, GREEDY, grammar, max_tokens=250, shown=shown))
    (call,) = whole(template, got.text, thinks=False).calls
    assert call.name == "get_weather"
    assert call.arguments["city"] in ("Paris", "Rome")
    assert call.arguments["days"] in range(1, 10)


def test_one_of_several_tools_is_called(engine: LlamaEngine) -> None:
    grammar = calls_grammar("<tool_call>", Wanted(False, [WEATHER, TIME]))
    got = answer(engine, Task(chat(engine, "What time is it?"), GREEDY, grammar, max_tokens=120))
    (call,) = whole("<tool_call>", got.text, thinks=False).calls
    assert call.name in ("get_weather", "get_time")


def test_a_thought_that_the_prompt_opened_may_go_on_before_the_call(engine: LlamaEngine) -> None:
    grammar = calls_grammar("<tool_call>", Wanted(True, [TIME], "<think>\n"))
    opened = engine.tokenize("<think>\nI have to", add_special=False, parse_special=True)
    got = answer(engine, Task((*chat(engine, "Time?"), *opened), GREEDY, grammar, max_tokens=8))
    assert got.text.strip()
    assert "<tool_call>" not in got.text


def test_an_answer_in_a_format_begins_with_a_channel(engine: LlamaEngine) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    prompt = chat(engine, "Say a.") + tuple(
        engine.tokenize("<|start|>assistant", add_special=False, parse_special=True)
    )
    grammar = led(schema_grammar(schema), HARMONY.answer_lead(Wanted(True)))
    got = answer(engine, Task(prompt, GREEDY, grammar, max_tokens=16))
    assert got.text.startswith("<|channel|>")


def test_a_control_token_is_shown_where_it_is_asked_for(engine: LlamaEngine) -> None:
    mark = engine.tokenize("<|im_start|>", add_special=False, parse_special=True)
    task = Task(chat(engine, "Hi"), GREEDY, f'root ::= <[{mark[0]}]> "x"', max_tokens=4)
    assert answer(engine, task).text == "x"
    shown = Task(task.prompt, GREEDY, task.grammar, max_tokens=4, shown=frozenset(mark))
    assert answer(engine, shown).text == "<|im_start|>x"
