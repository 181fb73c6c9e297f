"""Transcripts of each model family, parsed wherever the text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given

from corral_server.runner.tool_calls.calls import ParsedCall, ParsedText, ParserConfig
from corral_server.runner.tool_calls.detection import detect_format
from corral_server.runner.tool_calls.families.deepseek import OPEN as DEEPSEEK
from tests.runner.tool_calls.examples import (
    CODER,
    GLM,
    HARMONY,
    HERMES,
    KIMI,
    LFM2,
    LLAMA,
    MINIMAX,
    MISTRAL,
    PARIS_JSON,
    PHI,
    TRANSCRIPTS,
    Transcript,
    bars,
)
from tests.runner.tool_calls.transcripts import CUTS, PARIS, WEATHER, cut, parsed, whole

BROKEN = [
    (HERMES, "<tool_call>nothing</tool_call>"),
    (HERMES, "a <tool_call>{'name': 1}</tool_call> b"),
    (HERMES, '  <tool_call>\n{"name": "get_weather", "arguments": {"city": "Par'),
    (HERMES, '<tool_call>{"name": "get_weather", "arguments": "no json"}</tool_call>\n'),
    (HERMES, "<tool_call>" * 3 + "</tool_call>" * 3),
    (HERMES, "x <tool_ca"),
    (CODER, "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome"),
    (CODER, "<function=f>stray</function>"),
    (GLM, "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_va"),
    (MISTRAL, '[TOOL_CALLS][{"name": "get_weather"'),
    (MISTRAL, "see [TOOL_CALLS] there"),
    (LLAMA, '{"name": "get_weather", "parameters": {"city": '),
    (LLAMA, '{"name": "unknown_tool", "parameters": {}}'),
    (DEEPSEEK, bars("a<tool calls begin><tool call begin>function<tool sep>f\n```json\n{]\n```<tool call end>")),
    (DEEPSEEK, bars("<tool calls begin>stray<tool calls end>")),
    (PHI, "<|tool_call|>[]<|/tool_call|>"),
    (KIMI, "<|tool_calls_section_begin|>stray<|tool_calls_section_end|>"),
    (KIMI, "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"),
    (MINIMAX, '<minimax:tool_call><invoke name="f"><parameter name="a">1</invoke></minimax:tool_call>'),
    (LFM2, "<|tool_call_start|>[f(open('x'))]<|tool_call_end|>"),
    (LFM2, "<|tool_call_start|>[f(a=g())"),
]
"""Malformed calls."""


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_a_transcript_is_parsed(transcript: Transcript) -> None:
    assert whole(transcript.template, transcript.text, prompt_end=transcript.prompt_end) == transcript.expected


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
@given(CUTS)
def test_the_parsed_transcript_does_not_depend_on_the_cuts(transcript: Transcript, at: list[int]) -> None:
    wanted = ParserConfig(True, [WEATHER], transcript.prompt_end)
    assert parsed(transcript.template, cut(transcript.text, at), wanted) == transcript.expected


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_a_transcript_is_parsed_character_by_character(transcript: Transcript) -> None:
    wanted = ParserConfig(True, [WEATHER], transcript.prompt_end)
    assert parsed(transcript.template, list(transcript.text), wanted) == transcript.expected


@pytest.mark.parametrize(("template", "text"), BROKEN)
def test_a_malformed_call_is_text(template: str, text: str) -> None:
    assert whole(template, text, thinks=False) == ParsedText(content=text)


@pytest.mark.parametrize(("template", "text"), BROKEN)
@given(CUTS)
def test_a_malformed_call_is_text_whatever_the_cuts(template: str, text: str, at: list[int]) -> None:
    assert parsed(template, cut(text, at), ParserConfig(False, [WEATHER])) == ParsedText(content=text)


def test_a_malformed_harmony_call_is_text_with_its_header() -> None:
    text = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{broken<|call|>"
    assert whole(HARMONY, text, prompt_end="<|start|>assistant") == ParsedText(content=text)


def test_harmony_drops_thinking_that_was_not_requested() -> None:
    text = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>42"
    assert whole(HARMONY, text, thinks=False, prompt_end="<|start|>assistant") == ParsedText(content="42")


def test_text_is_emitted_as_soon_as_it_cannot_become_a_call() -> None:
    parser = detect_format(HERMES).parser(ParserConfig(False, [WEATHER]))
    assert parser is not None
    assert [parser.push(piece).content for piece in ("one", " two <", "b", "> <tool_c")] == ["one", " two", " <b", ">"]


def test_surrogates_in_arguments_are_replaced() -> None:
    text = '<tool_call>{"name": "get_weather", "arguments": {"city": "\\ud83d"}}</tool_call>'
    assert whole(HERMES, text).calls == (ParsedCall("get_weather", {"city": "\ufffd"}),)


def test_a_call_after_a_malformed_one_is_parsed() -> None:
    text = f"<tool_call>oops</tool_call>\n<tool_call>{PARIS_JSON}</tool_call>"
    assert whole(HERMES, text) == ParsedText(content="<tool_call>oops</tool_call>", calls=(PARIS,))


FAMILIES = sorted({transcript.template for transcript in TRANSCRIPTS} | {DEEPSEEK + "```json", "[TOOL_CALLS]"})


@pytest.mark.parametrize("template", FAMILIES)
def test_a_call_in_its_call_frame_is_parsed(template: str) -> None:
    before, after = detect_format(template).call_frame("get_weather")
    found = whole(template, f'{before}{{"city": "Paris"}}{after}', thinks=False, prompt_end="<|start|>assistant")
    assert [(call.name, call.arguments) for call in found.calls] == [("get_weather", {"city": "Paris"})]
    assert found.content == ""
