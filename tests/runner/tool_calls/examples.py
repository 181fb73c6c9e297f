"""What each family writes, and what is to come out of it."""

from __future__ import annotations

from dataclasses import dataclass

from corral_server.runner.tool_calls.calls import ParsedCall, ParsedText
from corral_server.runner.tool_calls.families.deepseek import OPEN as DEEPSEEK
from tests.runner.tool_calls.transcripts import PARIS, ROME

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
    expected: ParsedText
    prompt_end: str = ""


PARIS_JSON = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
ROME_JSON = '{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}'
_BOTH = (PARIS, ROME)

TRANSCRIPTS = [
    Transcript("hermes", HERMES, f"<tool_call>\n{PARIS_JSON}\n</tool_call>", ParsedText(calls=(PARIS,))),
    Transcript(
        "hermes-thinking-text-and-two-calls",
        HERMES,
        f"<think>\nTwo cities.\n</think>\n\nLet me look.\n<tool_call>\n{PARIS_JSON}\n</tool_call>\n"
        f"<tool_call>\n{ROME_JSON}\n</tool_call>",
        ParsedText("Two cities.", "Let me look.", _BOTH),
    ),
    Transcript(
        "hermes-opened-thought",
        HERMES,
        f"hm\n</think>\n\n<tool_call>{PARIS_JSON}</tool_call>",
        ParsedText("hm", "", (PARIS,)),
        "<|im_start|>assistant\n<think>\n",
    ),
    Transcript(
        "hermes-marker-in-an-argument",
        HERMES,
        '<tool_call>{"name": "get_weather", "arguments": {"city": "a </tool_call> b"}}</tool_call> done',
        ParsedText(content="done", calls=(ParsedCall("get_weather", {"city": "a </tool_call> b"}),)),
    ),
    Transcript("hermes-list", HERMES, f"<tool_call>[{PARIS_JSON}, {ROME_JSON}]</tool_call>", ParsedText(calls=_BOTH)),
    Transcript("hermes-without-its-end", HERMES, f"<tool_call>\n{PARIS_JSON}", ParsedText(calls=(PARIS,))),
    Transcript(
        "hermes-several-between-one-pair-of-tags",
        HERMES,
        f"<tool_call>\n{PARIS_JSON}\n{ROME_JSON}\n</tool_call>",
        ParsedText(calls=_BOTH),
    ),
    Transcript(
        "hermes-call-within-a-thought",
        HERMES,
        f"<think>Shall I <tool_call>{PARIS_JSON}</tool_call>?</think>\n\nNo.",
        ParsedText(f"Shall I <tool_call>{PARIS_JSON}</tool_call>?", "No."),
    ),
    Transcript(
        "hermes-call-at-the-end-of-a-thought-that-never-ends",
        HERMES,
        f"<think>I look.\n<tool_call>\n{PARIS_JSON}\n</tool_call>",
        ParsedText(f"I look.\n<tool_call>\n{PARIS_JSON}\n</tool_call>", "", (PARIS,)),
    ),
    Transcript("hermes-thought-that-never-ends", HERMES, "<think>Well, <tool_call>", ParsedText("Well, <tool_call>")),
    Transcript(
        "hermes-nested-and-escaped",
        HERMES,
        '<tool_call>{"name": "get_weather", "arguments": {"city": "\\u00e9\\ud83d\\ude00\\"}</tool_call>", '
        '"x": {"a": [1, {"b": "}"}], "c": null}}}</tool_call>',
        ParsedText(
            calls=(
                ParsedCall(
                    "get_weather", {"city": '\u00e9\U0001f600"}</tool_call>', "x": {"a": [1, {"b": "}"}], "c": None}}
                ),
            )
        ),
    ),
    Transcript(
        "hermes-text-between-and-a-call-that-breaks-off",
        HERMES,
        f'a <tool_call>{PARIS_JSON}</tool_call> b <tool_call>{{"name": "get_w',
        ParsedText(content='ab <tool_call>{"name": "get_w', calls=(PARIS,)),
    ),
    Transcript(
        "qwen3-coder-second-breaks-off",
        CODER,
        "<tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n</function>\n"
        "<function=get_weather>\n<parameter=ci",
        ParsedText(content="<function=get_weather>\n<parameter=ci", calls=(PARIS,)),
    ),
    Transcript(
        "qwen3-coder",
        CODER,
        "I'll look.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n"
        "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>",
        ParsedText(content="I'll look.", calls=(ROME,)),
    ),
    Transcript(
        "qwen3-coder-without-the-outer-tag",
        CODER,
        "<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>",
        ParsedText(calls=(PARIS,)),
    ),
    Transcript(
        "seed",
        CODER,
        "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n</function>\n</seed:tool_call>",
        ParsedText(calls=(PARIS,)),
    ),
    Transcript("functionary", CODER, '<function=get_weather>{"city": "Paris"}</function>', ParsedText(calls=(PARIS,))),
    Transcript(
        "kimi",
        KIMI,
        "Looking.<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        '{"city": "Paris"}<|tool_call_end|><|tool_call_begin|>functions.get_weather:1<|tool_call_argument_begin|>'
        '{"city": "Rome", "days": 2}<|tool_call_end|><|tool_calls_section_end|>',
        ParsedText(
            content="Looking.",
            calls=(
                ParsedCall("get_weather", {"city": "Paris"}, "functions.get_weather:0"),
                ParsedCall("get_weather", {"city": "Rome", "days": 2}, "functions.get_weather:1"),
            ),
        ),
    ),
    Transcript(
        "minimax",
        MINIMAX,
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Rome</parameter>\n'
        '<parameter name="days">2</parameter>\n</invoke>\n</minimax:tool_call>',
        ParsedText(calls=(ROME,)),
    ),
    Transcript(
        "lfm2",
        LFM2,
        "<|tool_call_start|>[get_weather(city='Paris'), get_weather(city=\"Rome\", days=2)]<|tool_call_end|>Checking.",
        ParsedText(content="Checking.", calls=_BOTH),
    ),
    Transcript(
        "glm",
        GLM,
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>2</arg_value>\n</tool_call>",
        ParsedText(calls=(ROME,)),
    ),
    Transcript("mistral-list", MISTRAL, f"[TOOL_CALLS] [{PARIS_JSON}, {ROME_JSON}]", ParsedText(calls=_BOTH)),
    Transcript(
        "mistral-id",
        MISTRAL,
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "abcdefghi"}]',
        ParsedText(calls=(ParsedCall("get_weather", {"city": "Paris"}, "abcdefghi"),)),
    ),
    Transcript(
        "mistral-named",
        "[THINK][TOOL_CALLS][ARGS]",
        '[THINK]Hm.[/THINK]Looking.[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}'
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Rome", "days": 2}',
        ParsedText("Hm.", "Looking.", _BOTH),
    ),
    Transcript(
        "mistral-second-breaks-off",
        "[TOOL_CALLS][ARGS]",
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]get_weather[ARGS]{"ci',
        ParsedText(content='[TOOL_CALLS]get_weather[ARGS]{"ci', calls=(PARIS,)),
    ),
    Transcript(
        "llama3-text-after-a-call",
        LLAMA,
        '{"name": "get_weather", "parameters": {"city": "Paris"}}\n\nThat calls {it}.',
        ParsedText(content="That calls {it}.", calls=(PARIS,)),
    ),
    Transcript(
        "llama3-second-breaks-off",
        LLAMA,
        '{"name": "get_weather", "parameters": {"city": "Paris"}}; {"name": "get_w',
        ParsedText(content='{"name": "get_w', calls=(PARIS,)),
    ),
    Transcript("llama3", LLAMA, '{"name": "get_weather", "parameters": {"city": "Paris"}}', ParsedText(calls=(PARIS,))),
    Transcript(
        "llama3-two",
        LLAMA,
        '\n{"name": "get_weather", "parameters": {"city": "Paris"}}; '
        '{"name": "get_weather", "parameters": {"city": "Rome", "days": 2}}',
        ParsedText(calls=_BOTH),
    ),
    Transcript("llama3-tag", LLAMA, f"<|python_tag|>{PARIS_JSON}", ParsedText(calls=(PARIS,))),
    Transcript("llama3-text", LLAMA, "It is {warm}.", ParsedText(content="It is {warm}.")),
    Transcript("llama3-json", LLAMA, '{"name": "Bob", "age": 3}', ParsedText(content='{"name": "Bob", "age": 3}')),
    Transcript("llama3-code", LLAMA, "<|python_tag|>print(1)", ParsedText(content="<|python_tag|>print(1)")),
    Transcript(
        "deepseek-r1",
        DEEPSEEK,
        bars(
            "<think>Hm.</think>\n\n<tool calls begin><tool call begin>function<tool sep>get_weather\n```json\n"
            '{"city": "Paris"}\n```<tool call end>\n<tool call begin>function<tool sep>get_weather\n```json\n'
            '{"city": "Rome", "days": 2}\n```<tool call end><tool calls end>'
        ),
        ParsedText("Hm.", "", _BOTH),
    ),
    Transcript(
        "deepseek-v3.1",
        DEEPSEEK,
        bars(
            "Well.<tool calls begin><tool call begin>get_weather<tool sep>"
            '{"city": "Paris"}<tool call end><tool calls end>'
        ),
        ParsedText("", "Well.", (PARIS,)),
    ),
    Transcript(
        "deepseek-second-breaks-off",
        DEEPSEEK,
        bars(
            '<tool calls begin><tool call begin>get_weather<tool sep>{"city": "Paris"}<tool call end>'
            '<tool call begin>get_weather<tool sep>{"ci'
        ),
        ParsedText(content=bars('<tool call begin>get_weather<tool sep>{"ci'), calls=(PARIS,)),
    ),
    Transcript(
        "harmony-text-without-a-header", HARMONY, "Just text", ParsedText(content="Just text"), "<|start|>assistant"
    ),
    Transcript(
        "harmony-text-after-a-thought",
        HARMONY,
        "<|channel|>analysis<|message|>Hm.<|end|>assistants help",
        ParsedText("Hm.", "assistants help"),
        "<|start|>assistant",
    ),
    Transcript("harmony-header-that-breaks-off", HARMONY, "<|channel|>fin", ParsedText(), "<|start|>assistant"),
    Transcript(
        "harmony-thought-that-never-ends",
        HARMONY,
        "<|channel|>analysis<|message|>Well, <b>",
        ParsedText("Well, <b>"),
        "<|start|>assistant",
    ),
    Transcript(
        "harmony-answer",
        HARMONY,
        "<|channel|>analysis<|message|>Simple.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>It is <b>42.<|return|>",
        ParsedText("Simple.", "It is <b>42."),
        "<|end|><|start|>assistant",
    ),
    Transcript(
        "harmony-call",
        HARMONY,
        "<|channel|>analysis<|message|>Need it.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
        '<|constrain|>json<|message|>{"city":"Paris"}',
        ParsedText("Need it.", "", (PARIS,)),
        "<|start|>assistant",
    ),
    Transcript(
        "harmony-recipient-first",
        HARMONY,
        "<|channel|>commentary<|message|>Looking.<|end|>"
        "<|start|>assistant to=functions.get_weather<|channel|>commentary "
        'json<|message|>{"city":"Rome","days":2}<|call|>',
        ParsedText("", "Looking.", (ROME,)),
        "<|start|>assistant",
    ),
    Transcript(
        "harmony-in-a-message",
        HARMONY,
        " and more<|return|>",
        ParsedText("", " and more"),
        "<|start|>assistant<|channel|>final<|message|>Some",
    ),
    Transcript(
        "command-r",
        COMMAND,
        "<|START_THINKING|>I look.<|END_THINKING|><|START_ACTION|>[\n"
        '{"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city": "Paris"}}\n]<|END_ACTION|>',
        ParsedText("I look.", "", (ParsedCall("get_weather", {"city": "Paris"}, "0"),)),
    ),
    Transcript("phi4", PHI, f"<|tool_call|>[{PARIS_JSON}]<|/tool_call|>", ParsedText(calls=(PARIS,))),
    Transcript("granite", GRANITE, f"<|tool_call|>[{PARIS_JSON}]", ParsedText(calls=(PARIS,))),
    Transcript(
        "nemotron", "<TOOLCALL>", f"Hm. <TOOLCALL>[{PARIS_JSON}, {ROME_JSON}]</TOOLCALL>", ParsedText("", "Hm.", _BOTH)
    ),
    Transcript("jamba", "<tool_calls>", f"<tool_calls>[\n{PARIS_JSON}\n]</tool_calls>", ParsedText(calls=(PARIS,))),
    Transcript(
        "internlm",
        "<|action_start|>",
        f"Looking.<|action_start|><|plugin|>\n{PARIS_JSON}<|action_end|>\n",
        ParsedText("", "Looking.", (PARIS,)),
    ),
    Transcript("unknown", "{{ tools }}", PARIS_JSON, ParsedText(calls=(PARIS,))),
]
