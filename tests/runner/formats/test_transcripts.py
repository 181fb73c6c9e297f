"""What each family writes, and what comes out of it wherever the text is cut."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given

from corral_server.runner.formats.calls import Call, Parsed, Wanted
from corral_server.runner.formats.deepseek import OPEN as DEEPSEEK
from corral_server.runner.formats.families import format_of
from tests.runner.formats.transcripts import CUTS, PARIS, ROME, WEATHER, cut, parsed, whole

HERMES, CODER, GLM, MISTRAL = "<tool_call>", "<tool_call><function=", "<tool_call><arg_key>", "[TOOL_CALLS]"
LLAMA, HARMONY, COMMAND = "<|python_tag|>", "<|channel|>", "<|START_ACTION|>"
KIMI, MINIMAX, LFM2 = "<|tool_calls_section_begin|>", "<minimax:tool_call>", "<|tool_call_start|>"
PHI, GRANITE = "<|tool_call|>[]<|/tool_call|>", "<|tool_call|>"


def bars(text: str) -> str:
    """DeepSeek's tokens from readable ones."""
    for words in ("tool calls begin", "tool calls end", "tool call begin", "tool call end", "tool sep"):
        text = text.replace(f"<{words}>", "<\uff5c" + words.replace(" ", "\u2581") + "\uff5c>")
    return text


@dataclass(frozen=True)
class Transcript:
    name: str
    template: str
    text: str
    expected: Parsed
    prompt_end: str = ""


_PARIS_JSON = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
_ROME_JSON = '{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}'
_BOTH = (PARIS, ROME)

TRANSCRIPTS = [
    Transcript("hermes", HERMES, f"<tool_call>\n{_PARIS_JSON}\n</tool_call>", Parsed(calls=(PARIS,))),
    Transcript(
        "hermes-thinking-text-and-two-calls",
        HERMES,
        f"<think>\nTwo cities.\n</think>\n\nLet me look.\n<tool_call>\n{_PARIS_JSON}\n</tool_call>\n"
        f"<tool_call>\n{_ROME_JSON}\n</tool_call>",
        Parsed("Two cities.", "Let me look.", _BOTH),
    ),
    Transcript(
        "hermes-opened-thought",
        HERMES,
        f"hm\n</think>\n\n<tool_call>{_PARIS_JSON}</tool_call>",
        Parsed("hm", "", (PARIS,)),
        "<|im_start|>assistant\n<think>\n",
    ),
    Transcript(
        "hermes-marker-in-an-argument",
        HERMES,
        '<tool_call>{"name": "get_weather", "arguments": {"city": "a </tool_call> b"}}</tool_call> done',
        Parsed(content="done", calls=(Call("get_weather", {"city": "a </tool_call> b"}),)),
    ),
    Transcript("hermes-list", HERMES, f"<tool_call>[{_PARIS_JSON}, {_ROME_JSON}]</tool_call>", Parsed(calls=_BOTH)),
    Transcript("hermes-without-its-end", HERMES, f"<tool_call>\n{_PARIS_JSON}", Parsed(calls=(PARIS,))),
    Transcript(
        "qwen3-coder",
        CODER,
        "I'll look.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n"
        "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>",
        Parsed(content="I'll look.", calls=(ROME,)),
    ),
    Transcript(
        "qwen3-coder-without-the-outer-tag",
        CODER,
        "<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>",
        Parsed(calls=(PARIS,)),
    ),
    Transcript(
        "seed",
        CODER,
        "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n</function>\n</seed:tool_call>",
        Parsed(calls=(PARIS,)),
    ),
    Transcript("functionary", CODER, '<function=get_weather>{"city": "Paris"}</function>', Parsed(calls=(PARIS,))),
    Transcript(
        "kimi",
        KIMI,
        "Looking.<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        '{"city": "Paris"}<|tool_call_end|><|tool_call_begin|>functions.get_weather:1<|tool_call_argument_begin|>'
        '{"city": "Rome", "days": 2}<|tool_call_end|><|tool_calls_section_end|>',
        Parsed(
            content="Looking.",
            calls=(
                Call("get_weather", {"city": "Paris"}, "functions.get_weather:0"),
                Call("get_weather", {"city": "Rome", "days": 2}, "functions.get_weather:1"),
            ),
        ),
    ),
    Transcript(
        "minimax",
        MINIMAX,
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Rome</parameter>\n'
        '<parameter name="days">2</parameter>\n</invoke>\n</minimax:tool_call>',
        Parsed(calls=(ROME,)),
    ),
    Transcript(
        "lfm2",
        LFM2,
        "<|tool_call_start|>[get_weather(city='Paris'), get_weather(city=\"Rome\", days=2)]<|tool_call_end|>Checking.",
        Parsed(content="Checking.", calls=_BOTH),
    ),
    Transcript(
        "glm",
        GLM,
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>2</arg_value>\n</tool_call>",
        Parsed(calls=(ROME,)),
    ),
    Transcript("mistral-list", MISTRAL, f"[TOOL_CALLS] [{_PARIS_JSON}, {_ROME_JSON}]", Parsed(calls=_BOTH)),
    Transcript(
        "mistral-id",
        MISTRAL,
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "abcdefghi"}]',
        Parsed(calls=(Call("get_weather", {"city": "Paris"}, "abcdefghi"),)),
    ),
    Transcript(
        "mistral-named",
        "[THINK][TOOL_CALLS][ARGS]",
        '[THINK]Hm.[/THINK]Looking.[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}'
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Rome", "days": 2}',
        Parsed("Hm.", "Looking.", _BOTH),
    ),
    Transcript("llama3", LLAMA, '{"name": "get_weather", "parameters": {"city": "Paris"}}', Parsed(calls=(PARIS,))),
    Transcript(
        "llama3-two",
        LLAMA,
        '\n{"name": "get_weather", "parameters": {"city": "Paris"}}; '
        '{"name": "get_weather", "parameters": {"city": "Rome", "days": 2}}',
        Parsed(calls=_BOTH),
    ),
    Transcript("llama3-tag", LLAMA, f"<|python_tag|>{_PARIS_JSON}", Parsed(calls=(PARIS,))),
    Transcript("llama3-text", LLAMA, "It is {warm}.", Parsed(content="It is {warm}.")),
    Transcript("llama3-json", LLAMA, '{"name": "Bob", "age": 3}', Parsed(content='{"name": "Bob", "age": 3}')),
    Transcript("llama3-code", LLAMA, "<|python_tag|>print(1)", Parsed(content="<|python_tag|>print(1)")),
    Transcript(
        "deepseek-r1",
        DEEPSEEK,
        bars(
            "<think>Hm.</think>\n\n<tool calls begin><tool call begin>function<tool sep>get_weather\n```json\n"
            '{"city": "Paris"}\n```<tool call end>\n<tool call begin>function<tool sep>get_weather\n```json\n'
            '{"city": "Rome", "days": 2}\n```<tool call end><tool calls end>'
        ),
        Parsed("Hm.", "", _BOTH),
    ),
    Transcript(
        "deepseek-v3.1",
        DEEPSEEK,
        bars(
            "Well.<tool calls begin><tool call begin>get_weather<tool sep>"
            '{"city": "Paris"}<tool call end><tool calls end>'
        ),
        Parsed("", "Well.", (PARIS,)),
    ),
    Transcript(
        "harmony-answer",
        HARMONY,
        "<|channel|>analysis<|message|>Simple.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>It is <b>42.<|return|>",
        Parsed("Simple.", "It is <b>42."),
        "<|end|><|start|>assistant",
    ),
    Transcript(
        "harmony-call",
        HARMONY,
        "<|channel|>analysis<|message|>Need it.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
        '<|constrain|>json<|message|>{"city":"Paris"}',
        Parsed("Need it.", "", (PARIS,)),
        "<|start|>assistant",
    ),
    Transcript(
        "harmony-recipient-first",
        HARMONY,
        "<|channel|>commentary<|message|>Looking.<|end|>"
        "<|start|>assistant to=functions.get_weather<|channel|>commentary "
        'json<|message|>{"city":"Rome","days":2}<|call|>',
        Parsed("", "Looking.", (ROME,)),
        "<|start|>assistant",
    ),
    Transcript(
        "harmony-in-a-message",
        HARMONY,
        " and more<|return|>",
        Parsed("", " and more"),
        "<|start|>assistant<|channel|>final<|message|>Some",
    ),
    Transcript(
        "command-r",
        COMMAND,
        "<|START_THINKING|>I look.<|END_THINKING|><|START_ACTION|>[\n"
        '{"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city": "Paris"}}\n]<|END_ACTION|>',
        Parsed("I look.", "", (Call("get_weather", {"city": "Paris"}, "0"),)),
    ),
    Transcript("phi4", PHI, f"<|tool_call|>[{_PARIS_JSON}]<|/tool_call|>", Parsed(calls=(PARIS,))),
    Transcript("granite", GRANITE, f"<|tool_call|>[{_PARIS_JSON}]", Parsed(calls=(PARIS,))),
    Transcript("unknown", "{{ tools }}", _PARIS_JSON, Parsed(calls=(PARIS,))),
]

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
"""Calls that are none."""


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_a_transcript_is_told_apart(transcript: Transcript) -> None:
    assert whole(transcript.template, transcript.text, prompt_end=transcript.prompt_end) == transcript.expected


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
@given(CUTS)
def test_it_does_not_matter_where_a_transcript_is_cut(transcript: Transcript, at: list[int]) -> None:
    wanted = Wanted(True, [WEATHER], transcript.prompt_end)
    assert parsed(transcript.template, cut(transcript.text, at), wanted) == transcript.expected


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_characters_one_by_one_come_out_the_same(transcript: Transcript) -> None:
    wanted = Wanted(True, [WEATHER], transcript.prompt_end)
    assert parsed(transcript.template, list(transcript.text), wanted) == transcript.expected


@pytest.mark.parametrize(("template", "text"), BROKEN)
def test_a_call_that_is_none_comes_out_as_text(template: str, text: str) -> None:
    assert whole(template, text, thinks=False) == Parsed(content=text)


@pytest.mark.parametrize(("template", "text"), BROKEN)
@given(CUTS)
def test_a_call_that_is_none_comes_out_as_text_however_it_is_cut(template: str, text: str, at: list[int]) -> None:
    assert parsed(template, cut(text, at), Wanted(False, [WEATHER])) == Parsed(content=text)


def test_a_call_in_harmony_that_is_none_comes_out_with_its_header() -> None:
    text = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{broken<|call|>"
    assert whole(HARMONY, text, prompt_end="<|start|>assistant") == Parsed(content=text)


def test_harmony_hides_thinking_that_is_not_wanted() -> None:
    text = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>42"
    assert whole(HARMONY, text, thinks=False, prompt_end="<|start|>assistant") == Parsed(content="42")


def test_text_is_shown_as_soon_as_it_cannot_become_a_call() -> None:
    parser = format_of(HERMES).parser(Wanted(False, [WEATHER]))
    assert parser is not None
    assert [parser.push(piece).content for piece in ("one", " two <", "b", "> <tool_c")] == ["one", " two", " <b", ">"]


def test_surrogates_in_arguments_can_be_sent() -> None:
    text = '<tool_call>{"name": "get_weather", "arguments": {"city": "\\ud83d"}}</tool_call>'
    assert whole(HERMES, text).calls == (Call("get_weather", {"city": "\ufffd"}),)


def test_a_good_call_after_a_broken_one_is_found() -> None:
    text = f"<tool_call>oops</tool_call>\n<tool_call>{_PARIS_JSON}</tool_call>"
    assert whole(HERMES, text) == Parsed(content="<tool_call>oops</tool_call>", calls=(PARIS,))


FAMILIES = sorted({transcript.template for transcript in TRANSCRIPTS} | {DEEPSEEK + "```json", "[TOOL_CALLS]"})


@pytest.mark.parametrize("template", FAMILIES)
def test_a_call_in_the_frame_that_a_grammar_gives_it_can_be_read(template: str) -> None:
    before, after = format_of(template).frame("get_weather")
    found = whole(template, f'{before}{{"city": "Paris"}}{after}', thinks=False, prompt_end="<|start|>assistant")
    assert [(call.name, call.arguments) for call in found.calls] == [("get_weather", {"city": "Paris"})]
    assert found.content == ""
