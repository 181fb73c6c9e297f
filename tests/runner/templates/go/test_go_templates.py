"""Go templates: the language, Ollama's prompts, and unsupported constructs."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_server.runner.templates import limits
from corral_server.runner.templates.go.execute import execute
from corral_server.runner.templates.go.parse import parse
from corral_server.runner.templates.go.prompting import GoTemplate
from corral_server.runner.templates.go.tokens import UnsupportedTemplate
from corral_server.runner.templates.limits import TemplateLimit
from tests.runner.tool_calls.transcripts import WEATHER

DATA: Mapping[str, object] = {"A": "a", "B": "", "N": 3, "L": ["x", "y", "z"], "M": {"k": "v", "j": "w"}, "T": True}


def run(source: str) -> str:
    return execute(parse(source), DATA)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("plain", "plain"),
        ("{{ .A }}{{.N}}{{ .T }}{{ .Missing }}", "a3true"),
        ("x {{- .A -}} y", "xay"),
        ("x {{ .A }} y", "x a y"),
        ("a {{/* note */}} b {{- /* note */ -}} c", "a  bc"),
        ("{{ if .A }}yes{{ else }}no{{ end }}{{ if .B }}yes{{ else }}no{{ end }}", "yesno"),
        ("{{ if .B }}1{{ else if .A }}2{{ else }}3{{ end }}", "2"),
        ("{{ with .M }}{{ .k }}{{ end }}{{ with .B }}x{{ else }}y{{ end }}", "vy"),
        ("{{ with .B }}x{{ else with .A }}{{ . }}{{ end }}", "a"),
        ("{{ range .L }}{{ . }},{{ end }}", "x,y,z,"),
        ("{{ range $i, $e := .L }}{{ $i }}{{ $e }}{{ end }}", "0x1y2z"),
        ("{{ range $e := .L }}{{ $e }}{{ end }}", "xyz"),
        ("{{ range .Missing }}x{{ else }}none{{ end }}", "none"),
        ("{{ range $k, $v := .M }}{{ $k }}={{ $v }};{{ end }}", "j=w;k=v;"),
        ('{{ range .L }}{{ if eq . "y" }}{{ break }}{{ end }}{{ . }}{{ end }}', "x"),
        ("{{ range .L }}{{ if eq . `y` }}{{ continue }}{{ end }}{{ . }}{{ end }}", "xz"),
        ('{{ $x := .A }}{{ $x }}{{ $x = "b" }}{{ $x }}', "ab"),
        ("{{ $x := 1 }}{{ if .A }}{{ $x = 2 }}{{ $y := 5 }}{{ end }}{{ $x }}", "2"),
        ("{{ $x := 1 }}{{ if .A }}{{ $x := 2 }}{{ $x }}{{ end }}{{ $x }}", "21"),
        ("{{ range .L }}{{ $.A }}{{ end }}", "aaa"),
        ('{{ len .L }}{{ len "ü" }}{{ len .M }}', "322"),
        ('{{ index .L 1 }}{{ index .M "k" }}{{ (index .L 0) }}', "yvx"),
        ('{{ slice .L 1 }}{{ slice .L 0 2 }}{{ slice "hello" 1 3 }}', "[y z][x y]el"),
        ("{{ and .A .B }}|{{ or .B .A }}|{{ not .B }}|{{ and .A .T }}", "|a|true|true"),
        ("{{ or .A (index .L 9) }}", "a"),
        (
            '{{ eq .A "b" "a" }}{{ ne .N 3 }}{{ lt .N 4 }}{{ ge .N 3 }}{{ gt .N 3 }}{{ le .N 2 }}',
            "truefalsetruetruefalsefalse",
        ),
        ('{{ .A | printf "<%s>" }}{{ printf "%d-%v-%q-%%" .N .T .A }}', '<a>3-true-"a"-%'),
        ("{{ print .N .N .A }}{{ println .A 1 }}", "3 3aa 1\n"),
        ('{{ json .M }}{{ json "<&>" }}{{ .L | json }}', '{"k":"v","j":"w"}"\\u003c\\u0026\\u003e"["x","y","z"]'),
        ("{{ .M }}{{ .L }}", "map[j:w k:v][x y z]"),
        ('{{ if and (eq .A "a") (or .B (not .B)) }}ok{{ end }}', "ok"),
        ("{{ if eq (len (slice .L 2)) 1 }}last{{ end }}", "last"),
        ('{{ "a\\n\\"b" }}{{ `raw\\n` }}{{ \'x\' }}', 'a\n"braw\\n120'),
        ("{{ (index .L 0) | len }}", "1"),
        ("{{- range $i, $_ := .L }}\n{{- $last := eq (len (slice $.L $i)) 1 }}{{ if $last }}!{{ end }}{{ end }}", "!"),
    ],
)
def test_semantics_of_the_language(source: str, expected: str) -> None:
    assert run(source) == expected


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ('{{ define "x" }}{{ end }}', "define"),
        ('{{ template "x" . }}', 'template "x"'),
        ('{{ block "x" . }}{{ end }}', "block"),
        ("{{ html .A }}", "html"),
        ("{{ call .A }}", "call"),
        ("{{ toTypeScriptType .A }}", "toTypeScriptType"),
        ("{{ .A.Method 1 }}", "1"),
        ("{{ if .A }}", "without {{ end }}"),
        ("{{ end }}", "without a beginning"),
        ("{{ .A", "without an end"),
        ("{{ $x }}", "$x"),
        ("{{ .A.B }}", ".B of a text"),
        ("{{ index .L 9 }}", "index 9"),
        ("{{ break }}", "outside of range"),
        ("{{ slice .L 2 1 }}", "slice from 2 to 1"),
        ('{{ printf "%5d" .N }}', "%5"),
        ("{{ lt .A .N }}", "comparison"),
        ("{{ range .A }}{{ end }}", "range over a text"),
        ("{{ .A @ }}", "@"),
        ("{{ (.A }}", "parenthesis"),
        ("{{ .A | .B }}", "pipe"),
        ("{{ 1 2 }}", "2"),
        ("{{ not }}", "not with no arguments"),
    ],
)
def test_an_unsupported_construct_is_named(source: str, named: str) -> None:
    with pytest.raises(UnsupportedTemplate) as caught:
        run(source)
    assert named in str(caught.value)


@given(st.text(alphabet="{}.-$|()\"`'/* \nAifendrageohlswt1:=,", max_size=60))
def test_any_text_is_a_template_or_rejected(text: str) -> None:
    try:
        nodes = parse("{{" + text)
        execute(nodes, DATA)
    except UnsupportedTemplate:
        pass


@given(st.text(alphabet=st.characters(exclude_characters="{"), max_size=60))
def test_text_without_actions_is_unchanged(text: str) -> None:
    assert run(text) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ range .L }}" * 40 + "x" + "{{ end }}" * 40,
        "{{ $x := .A }}" + "{{ $x = printf `%s%s` $x $x }}" * 60,
        "{{ if .A }}" * 5000,
        "{{ " + "(" * 5000,
        "{{ if .B }}{{ else if .B }}" + "{{ else if .B }}" * 5000 + "{{ end }}",
    ],
)
def test_a_hostile_template_exceeds_a_limit(source: str) -> None:
    start = time.monotonic()
    with pytest.raises((UnsupportedTemplate, TemplateLimit)):
        run(source)
    assert time.monotonic() - start < 10 * limits.TIME_LIMIT


CHATML = (
    "{{- if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
    "{{- if .Prompt }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n{{ .Response }}<|im_end|>\n"
)
QWEN = """{{- if or .System .Tools }}<|im_start|>system
{{- if .System }}
{{ .System }}
{{- end }}
{{- if .Tools }}

<tools>
{{- range .Tools }}
{"type": "function", "function": {{ .Function }}}
{{- end }}
</tools>
{{- end }}<|im_end|>
{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ if .Content }}{{ .Content }}
{{- else if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{ end }}</tool_call>
{{- end }}{{ if not $last }}<|im_end|>
{{ end }}
{{- else if eq .Role "tool" }}<|im_start|>user
<tool_response>
{{ .Content }}
</tool_response><|im_end|>
{{ end }}
{{- if and (ne .Role "assistant") $last }}<|im_start|>assistant
{{ end }}
{{- end }}"""


def test_a_prompt_response_template_is_executed_for_each_turn() -> None:
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "U1"},
        {"role": "assistant", "content": "A1"},
        {"role": "user", "content": "U2"},
    ]
    assert GoTemplate(CHATML).render(messages, tools=(), variables={}) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        "<|im_start|>user\nU2<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_final_assistant_message_stays_open_in_a_go_template() -> None:
    messages = [{"role": "user", "content": "U"}, {"role": "assistant", "content": "We"}]
    text = GoTemplate(CHATML).render(messages, tools=(), variables={})
    assert text == "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nWe"


def test_a_template_without_response_gets_one_appended() -> None:
    messages = [
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": "V"},
    ]
    assert GoTemplate("[{{ .Prompt }}]").render(messages, tools=(), variables={}) == "[U]A[V]"


def test_a_published_template_with_messages_and_tools() -> None:
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    messages: list[Mapping[str, object]] = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "warm"},
    ]
    text = GoTemplate(QWEN).render(messages, tools=[WEATHER], variables={})
    function = (
        '{"name":"get_weather","description":"The weather in a city","parameters":{"type":"object","required":["city"],'
        '"properties":{"city":{"type":"string"},"days":{"type":"integer"}}}}'
    )
    assert text == (
        f'<|im_start|>system\nS\n\n<tools>\n{{"type": "function", "function": {function}}}\n</tools><|im_end|>\n'
        "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n<tool_call>\n"
        '{"name": "get_weather", "arguments": {"city":"Paris"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nwarm\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


def test_adjacent_messages_of_one_role_are_joined() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    template = GoTemplate("{{ range .Messages }}<{{ .Content }}>{{ end }}")
    assert template.render(messages, tools=(), variables={}) == "<a\n\nb>"


def test_fields_of_a_tool() -> None:
    source = (
        "{{ range .Tools }}{{ .Type }}:{{ .Function.Name }}({{ range $k, $v := .Function.Parameters.Properties }}"
        "{{ $k }} {{ $v.Type }},{{ end }}){{ .Function.Parameters.Required }}{{ end }}{{ .Messages | len }}"
    )
    text = GoTemplate(source).render([{"role": "user", "content": "x"}], tools=[WEATHER], variables={})
    assert text == "function:get_weather(city string,days integer,)[city]1"


def test_typescript_types_of_a_tool() -> None:
    types = {"a": {"type": ["integer", "null"]}, "b": {"anyOf": [{"type": "array"}, {"type": "string"}]}, "c": {}}
    tool = {"function": {"name": "f", "parameters": {"properties": types}}}
    source = (
        "{{ range .Messages }}{{ end }}{{ range .Tools }}{{ range $name, $prop := .Function.Parameters.Properties }}"
        "{{ $name }}: {{ $prop.ToTypeScriptType }};{{ end }}{{ end }}"
    )
    text = GoTemplate(source).render([], tools=[tool], variables={})
    assert text == "a: number | null;b: any[] | string;c: any;"


def test_an_unknown_field_is_named() -> None:
    template = GoTemplate("{{ range .Messages }}{{ .Mood }}{{ end }}")
    with pytest.raises(UnsupportedTemplate, match=r"\.Mood of a message"):
        template.render([{"role": "user", "content": "x"}], tools=(), variables={})


def test_thinking_variables() -> None:
    source = "{{ if and .IsThinkSet .Think }}{{ .ThinkLevel }}{{ end }}{{ range .Messages }}{{ end }}"
    variables = {"enable_thinking": True, "reasoning_effort": "low"}
    assert GoTemplate(source).render([], tools=(), variables=variables) == "low"
    assert GoTemplate(source).render([], tools=(), variables={}) == ""


def test_insertion_between_prompt_and_suffix() -> None:
    template = GoTemplate(
        "{{ if .Suffix }}<PRE> {{ .Prompt }} <SUF>{{ .Suffix }} <MID>{{ else }}{{ .Prompt }}{{ end }}"
    )
    assert template.takes_suffix
    assert template.insert("def f(", "return 1", {}) == "<PRE> def f( <SUF>return 1 <MID>"
