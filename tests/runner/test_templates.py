"""Chat templates as Hugging Face's tokenizers render them, and templates that were made to do harm."""

from __future__ import annotations

import json
import time

import pytest

from corral_server.runner import template_limits
from corral_server.runner.templates import PLAIN, ChatTemplate, Message, TemplateFailed, go_construct

_KEEP = "{%% set ns = namespace(x=0) %%}{%% for i in range(99999) %%}{%% set ns.x = [ns.x, %s] %%}{%% endfor %%}"
"""Keeps everything that the expression makes."""
USER = {"role": "user", "content": "hi"}


def render(source: str, *messages: Message, **variables: object) -> str:
    return ChatTemplate(source, bos="<s>", eos="</s>").render(messages or (USER,), variables=variables)


def test_messages_and_special_tokens_are_there() -> None:
    source = "{{ bos_token }}{% for m in messages %}{{ m['role'] }}:{{ m.content }}{{ eos_token }}{% endfor %}"
    assert render(source) == "<s>user:hi</s>"


def test_blocks_take_their_line_with_them() -> None:
    assert render("{% for m in messages %}\n  {% if true %}\nx\n  {% endif %}\n{% endfor %}\n") == "x\n"


def test_an_answer_is_prompted_for() -> None:
    assert render("{% if add_generation_prompt %}go{% endif %}") == "go"


def test_a_last_message_of_the_assistant_is_left_open() -> None:
    source = "{% for m in messages %}<{{ m.content | trim }}>{% endfor %}{% if add_generation_prompt %}go{% endif %}"
    assert render(source, USER, {"role": "assistant", "content": "well "}) == "<hi><well"


def test_tojson_writes_as_hugging_face_does() -> None:
    value = {"b": "<ü>", "a": [1, None, True]}
    assert render("{{ x | tojson }}", x=value) == json.dumps(value, ensure_ascii=False)
    assert render("{{ x | tojson(indent=2) }}", x=value) == json.dumps(value, ensure_ascii=False, indent=2)


def test_strftime_now_is_the_date() -> None:
    assert render("{{ strftime_now('%Y') }}") == time.strftime("%Y")


def test_loops_can_be_left() -> None:
    assert render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"


def test_what_real_templates_use_works() -> None:
    source = (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
        "{{ ns.n }}{{ loop_is is defined }}{{ messages[0]['role'].upper() }}{{ 'a' ~ 1 ~ 'b' }}"
        "{{ ['x', 'y'] | join('-') }}{{ ', '.join(['p', 'q']) }}{{ messages | length }}{{ 7 % 2 }}"
        "{% macro tag(name) %}<{{ name }}>{% endmacro %}{{ tag('t') }}{{ 'a b'.split(' ')[1] }}"
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ 'x' * 2 }}"
    )
    assert render(source) == "1FalseUSERa1bx-yp, q11<t>b1xx"


def test_what_thinking_models_templates_use_works() -> None:
    source = (
        "{%- for m in messages[::-1] %}{%- if m.content is string and not m.content.startswith('<') %}"
        "{{- m.content.split('</think>')[-1].lstrip('\\n') }}|{%- endif %}{%- endfor %}"
        "{%- generation %}{{ messages[0].content[:1] }}{% endgeneration %}{{ (1 + 2) % 2 }}{{ '%' }}"
    )
    assert render(source, USER, {"role": "user", "content": "a</think>\n\nb"}) == "b|hi|h1%"


def test_loop_variables_work() -> None:
    source = "{% for m in messages %}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{% endfor %}"
    assert render(source, USER, USER) == "0TrueFalse21FalseTrue2"


def test_methods_that_are_measured_work_in_loops_that_set_variables() -> None:
    source = (
        "{% for m in messages %}{% set x = m.content.replace('h', 'H') %}{{ x }}{{ '-'.join(['a', x]) }}{% endfor %}"
    )
    assert render(source) == "Hia-Hi"


def test_indent_works_as_jinjas() -> None:
    assert render("{{ 'a\nb\n\nc' | indent(2) }}|{{ 'a' | indent(2, true) }}") == "a\n  b\n\n  c|  a"


def test_what_a_filter_yields_can_be_written_as_json() -> None:
    assert render("{{ messages | map(attribute='content') | tojson }}") == '["hi"]'


def test_a_template_that_loops_over_tools_works_without_any() -> None:
    assert render("{% for tool in tools %}{{ tool }}{% endfor %}.") == "."


def test_a_template_without_a_place_for_a_system_message_gets_it_before_the_first_question() -> None:
    source = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    )
    assert render(source, {"role": "system", "content": "S"}, USER) == "[user]S\n\nhi"
    with pytest.raises(TemplateFailed, match="System role not supported"):
        render(source, {"role": "system", "content": "S"})


def test_raise_exception_is_the_clients_fault() -> None:
    with pytest.raises(TemplateFailed, match=r"^no system role$") as caught:
        render("{{ raise_exception('no system role') }}")
    assert caught.value.clients_fault


def test_a_broken_template_says_where() -> None:
    with pytest.raises(TemplateFailed, match="broken at line 2"):
        render("a\n{% if %}")


def test_a_template_that_fails_is_no_fault_of_the_client() -> None:
    with pytest.raises(TemplateFailed, match="the chat template failed") as caught:
        render("{{ messages[0].content.nothing.more }}")
    assert not caught.value.clients_fault


def test_plain_gives_the_contents_alone() -> None:
    assert render(PLAIN, USER, {"role": "assistant", "content": "a"}, USER) == "hi\n\na\n\nhi"


@pytest.mark.parametrize(
    "source",
    [
        "{{ .Prompt }}",
        "{{- if .System }}x{{ end }}",
        "{{ range .Messages }}",
        "{{ $last }}",
        "{{ . }}",
        "{{/* note */}}",
    ],
)
def test_go_templates_are_told_apart(source: str) -> None:
    assert go_construct(source) is not None


def test_a_go_template_is_run_as_one() -> None:
    assert render("{{ range .Messages }}{{ .Content }}{{ end }}") == "hi"


def test_what_a_go_template_has_and_is_not_supported_is_named() -> None:
    with pytest.raises(TemplateFailed, match=r'what is not supported: \{\{ template "x"'):
        render('{{ .Prompt }}{{ template "x" . }}')


@pytest.mark.parametrize(
    "source", ["{{ range(3) | list }}", "{{ bos_token }}", "{% if x %}{{ x }}{% endif %}", "{{- ' .x' }}"]
)
def test_jinja_is_not_taken_for_go(source: str) -> None:
    assert go_construct(source) is None


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10**9 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{% set ns = namespace(x='aaaa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='aaaa') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=['a']) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x.replace('a', 'aaaa') %}{% endfor %}",
        "{% set x = 'a' * 9999 %}{% for i in range(99999) %}{{ x }}{% endfor %}",
        "{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}",
        "{% set x = 'a' * 999999 %}{{ x.join(x) }}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '{:>999999999}'.format('') }}",
        "{{ 'a'.center(999999999) }}",
        "{{ 'a' | center(999999999) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ range(999999999) | list }}",
        "{{ [1] | tojson(indent=999999999) }}",
        "{% set x = 'a\\n' * 999999 %}{{ x | indent(999999999) }}",
        "{{ 5 | round(-999999999) }}",
        "{{ (5).to_bytes(999999999, 'big') }}",
        _KEEP % "('a' * 4999999) | list",
        _KEEP % "('a' * 4999999) | upper",
        _KEEP % "('a' * 4999999)[1:]",
        _KEEP % "('a' * 4999999).upper()",
        _KEEP % "('a,' * 999999).split(',')",
        "{% include '/etc/passwd' %}",
    ],
)
def test_a_hostile_template_fails_in_time(source: str) -> None:
    start = time.monotonic()
    with pytest.raises(TemplateFailed):
        render(source)
    assert time.monotonic() - start < 10 * template_limits.TIME_LIMIT


def test_an_endless_template_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "TIME_LIMIT", 0.1)
    with pytest.raises(TemplateFailed, match=r"longer than 0\.1 s"):
        render("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")


@pytest.mark.parametrize("index", range(5))
def test_what_a_template_keeps_is_limited_before_its_time_is_up(monkeypatch: pytest.MonkeyPatch, index: int) -> None:
    expressions = ("| list", "| upper", "[1:]", ".upper()", ".split('b')")
    monkeypatch.setattr(template_limits, "TIME_LIMIT", 60)
    with pytest.raises(TemplateFailed, match="too many texts and lists"):
        render(_KEEP % f"('a' * 4999999){expressions[index]}")


def test_a_template_of_megabytes_is_refused() -> None:
    with pytest.raises(TemplateFailed, match="more than"):
        render("x" * (template_limits.MAX_TEMPLATE + 1))


def test_the_next_rendering_has_a_budget_of_its_own() -> None:
    template = ChatTemplate("{% for i in range(9999) %}{{ 'a' * 999 }}{% endfor %}")
    assert [len(template.render([USER])) for _ in range(3)] == [9999 * 999] * 3
