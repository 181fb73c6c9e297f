"""Chat templates: rendering as Hugging Face's tokenizers do, and hostile templates."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from corral_server.runner.templates import limits
from corral_server.runner.templates.sandbox import TemplateSandbox
from corral_server.runner.templates.templates import (
    CONTENT_ONLY,
    ChatTemplate,
    ChatTemplateError,
    Message,
    find_go_construct,
)

_KEEP = "{%% set ns = namespace(x=0) %%}{%% for i in range(99999) %%}{%% set ns.x = [ns.x, %s] %%}{%% endfor %%}"
"""Keeps everything that the expression makes."""
USER = {"role": "user", "content": "hi"}


def render(source: str, *messages: Message, **variables: object) -> str:
    return ChatTemplate(source, bos="<s>", eos="</s>").render(messages or (USER,), variables=variables)


def test_messages_and_special_tokens_are_rendered() -> None:
    source = "{{ bos_token }}{% for m in messages %}{{ m['role'] }}:{{ m.content }}{{ eos_token }}{% endfor %}"
    assert render(source) == "<s>user:hi</s>"


def test_block_tags_remove_their_line() -> None:
    assert render("{% for m in messages %}\n  {% if true %}\nx\n  {% endif %}\n{% endfor %}\n") == "x\n"


def test_the_generation_prompt_is_added() -> None:
    assert render("{% if add_generation_prompt %}go{% endif %}") == "go"


def test_a_final_assistant_message_stays_open() -> None:
    source = "{% for m in messages %}<{{ m.content | trim }}>{% endfor %}{% if add_generation_prompt %}go{% endif %}"
    assert render(source, USER, {"role": "assistant", "content": "well "}) == "<hi><well"


def test_tojson_matches_hugging_face() -> None:
    value = {"b": "<ü>", "a": [1, None, True]}
    assert render("{{ x | tojson }}", x=value) == json.dumps(value, ensure_ascii=False)
    assert render("{{ x | tojson(indent=2) }}", x=value) == json.dumps(value, ensure_ascii=False, indent=2)


def test_strftime_now_returns_the_date() -> None:
    assert render("{{ strftime_now('%Y') }}") == time.strftime("%Y")


def test_break_and_continue() -> None:
    assert render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"


def test_constructs_of_published_templates() -> None:
    source = (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
        "{{ ns.n }}{{ loop_is is defined }}{{ messages[0]['role'].upper() }}{{ 'a' ~ 1 ~ 'b' }}"
        "{{ ['x', 'y'] | join('-') }}{{ ', '.join(['p', 'q']) }}{{ messages | length }}{{ 7 % 2 }}"
        "{% macro tag(name) %}<{{ name }}>{% endmacro %}{{ tag('t') }}{{ 'a b'.split(' ')[1] }}"
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ 'x' * 2 }}"
    )
    assert render(source) == "1FalseUSERa1bx-yp, q11<t>b1xx"


def test_constructs_of_thinking_models_templates() -> None:
    source = (
        "{%- for m in messages[::-1] %}{%- if m.content is string and not m.content.startswith('<') %}"
        "{{- m.content.split('</think>')[-1].lstrip('\\n') }}|{%- endif %}{%- endfor %}"
        "{%- generation %}{{ messages[0].content[:1] }}{% endgeneration %}{{ (1 + 2) % 2 }}{{ '%' }}"
    )
    assert render(source, USER, {"role": "user", "content": "a</think>\n\nb"}) == "b|hi|h1%"


def test_loop_variables() -> None:
    source = "{% for m in messages %}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{% endfor %}"
    assert render(source, USER, USER) == "0TrueFalse21FalseTrue2"


def test_measured_methods_in_loops_that_set_variables() -> None:
    source = (
        "{% for m in messages %}{% set x = m.content.replace('h', 'H') %}{{ x }}{{ '-'.join(['a', x]) }}{% endfor %}"
    )
    assert render(source) == "Hia-Hi"


def test_indent_matches_jinja() -> None:
    assert render("{{ 'a\nb\n\nc' | indent(2) }}|{{ 'a' | indent(2, true) }}") == "a\n  b\n\n  c|  a"


def test_tojson_accepts_the_iterator_of_a_filter() -> None:
    assert render("{{ messages | map(attribute='content') | tojson }}") == '["hi"]'


def test_a_template_that_loops_over_tools_renders_without_tools() -> None:
    assert render("{% for tool in tools %}{{ tool }}{% endfor %}.") == "."


def test_a_rejected_system_message_is_merged_into_the_first_user_message() -> None:
    source = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    )
    assert render(source, {"role": "system", "content": "S"}, USER) == "[user]S\n\nhi"
    with pytest.raises(ChatTemplateError, match="System role not supported"):
        render(source, {"role": "system", "content": "S"})


def test_raise_exception_is_a_client_error() -> None:
    with pytest.raises(ChatTemplateError, match=r"^no system role$") as caught:
        render("{{ raise_exception('no system role') }}")
    assert caught.value.is_client_error


def test_a_syntax_error_names_its_line() -> None:
    with pytest.raises(ChatTemplateError, match="invalid at line 2"):
        render("a\n{% if %}")


def test_a_failing_template_is_no_client_error() -> None:
    with pytest.raises(ChatTemplateError, match="the chat template failed") as caught:
        render("{{ messages[0].content.nothing.more }}")
    assert not caught.value.is_client_error


def test_content_only_template() -> None:
    assert render(CONTENT_ONLY, USER, {"role": "assistant", "content": "a"}, USER) == "hi\n\na\n\nhi"


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
def test_a_go_template_is_detected(source: str) -> None:
    assert find_go_construct(source) is not None


def test_a_go_template_is_executed() -> None:
    assert render("{{ range .Messages }}{{ .Content }}{{ end }}") == "hi"


def test_an_unsupported_go_construct_is_named() -> None:
    with pytest.raises(ChatTemplateError, match=r'unsupported construct: \{\{ template "x"'):
        render('{{ .Prompt }}{{ template "x" . }}')


@pytest.mark.parametrize(
    "source", ["{{ range(3) | list }}", "{{ bos_token }}", "{% if x %}{{ x }}{% endif %}", "{{- ' .x' }}"]
)
def test_jinja_is_not_detected_as_go(source: str) -> None:
    assert find_go_construct(source) is None


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
def test_a_hostile_template_exceeds_a_limit(source: str) -> None:
    start = time.monotonic()
    with pytest.raises(ChatTemplateError):
        render(source)
    assert time.monotonic() - start < 10 * limits.TIME_LIMIT


def test_an_endless_template_exceeds_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TIME_LIMIT", 0.1)
    with pytest.raises(ChatTemplateError, match=r"longer than 0\.1 s"):
        render("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")


@pytest.mark.parametrize("index", range(5))
def test_intermediate_values_exceed_the_memory_limit(monkeypatch: pytest.MonkeyPatch, index: int) -> None:
    expressions = ("| list", "| upper", "[1:]", ".upper()", ".split('b')")
    monkeypatch.setattr(limits, "TIME_LIMIT", 60)
    with pytest.raises(ChatTemplateError, match="more than 128 MiB of intermediate values"):
        render(_KEEP % f"('a' * 4999999){expressions[index]}")


def test_an_oversized_template_is_rejected() -> None:
    with pytest.raises(ChatTemplateError, match=r"^the chat template has 65537 characters, at most 65536 are allowed$"):
        render("x" * (limits.MAX_TEMPLATE_CHARACTERS + 1))


@pytest.mark.parametrize("source", ["{{a}}" * 12_000, "{{" + "a," * 9000 + "a}}", "{%if a%}{%endif%}" * 3000])
def test_a_template_of_too_many_words_is_rejected_before_it_is_compiled(source: str) -> None:
    """200 KB of ``{{a}}`` took 8.7 s and 445 MiB to compile."""
    with pytest.raises(ChatTemplateError, match=r"^the chat template has more than 8000 words within its tags$"):
        render(source)


def test_words_are_counted_up_to_the_limit_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def split(_sandbox: object, _source: str) -> Iterator[tuple[int, str, str]]:
        for _ in range(limits.MAX_TEMPLATE_WORDS + 1):
            yield 1, "name", "a"
        raise AssertionError("the rest of the template is read")

    monkeypatch.setattr(TemplateSandbox, "lex", split)
    with pytest.raises(ChatTemplateError, match="more than 8000 words"):
        render("{{ a }}")


def nested(body: str, after: str) -> str:
    """Return a template that nests values in themselves 60 times."""
    return "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}" + body + "{% endfor %}" + after


VARARGS = "{% macro m() %}{% set ns.x = varargs %}{% endmacro %}"


@pytest.mark.parametrize(
    "source",
    [
        nested("{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}", "{{ ns.x == ns.y }}"),
        nested("{% set ns.x = (ns.x, ns.x) %}", "{{ {ns.x: 1} | length }}"),
        nested("{% set ns.x = {'a': ns.x, 'b': ns.x} %}", "{{ ns.x == ns.y }}"),
        nested("{% set ns.x = dict(a=ns.x, b=ns.x) %}", "{{ ns.x == ns.y }}"),
        nested("{% set ns.x = namespace(a=ns.x, b=ns.x) %}", "{{ ns.x }}"),
        nested("{% set ns.x = namespace(a=ns.x, b=ns.x) %}", "{{ ns.x | string }}"),
        nested("{% set ns.x = namespace(a=ns.x, b=ns.x) %}", "{{ 'a' ~ ns.x }}"),
        nested(VARARGS + "{{ m(ns.x, ns.x) }}", "{{ ns.x == ns.y }}"),
    ],
)
def test_a_value_without_end_exceeds_a_limit(source: str) -> None:
    """Comparing two of them, or printing one, is a single operation that nothing could end."""
    with pytest.raises(ChatTemplateError, match="more than"):
        render(source)


@pytest.mark.parametrize(
    "expression", ["dict(a=range(9999) | list)", "{'a': range(9999) | list}", "('a,' * 9999).split(',')"]
)
def test_memory_is_charged_for_every_value(monkeypatch: pytest.MonkeyPatch, expression: str) -> None:
    monkeypatch.setattr(limits, "TIME_LIMIT", 60)
    monkeypatch.setattr(limits, "MEMORY_LIMIT", 8 * 1024 * 1024)
    with pytest.raises(ChatTemplateError, match="more than 8 MiB of intermediate values"):
        render(_KEEP % expression)


def test_methods_of_types_are_refused() -> None:
    """``dict.fromkeys(range(100000))`` in a loop took 509 MiB."""
    with pytest.raises(ChatTemplateError, match="unsafe"):
        render("{{ dict.fromkeys(range(100000)) | length }}")


def test_lists_tuples_and_dicts_of_a_template() -> None:
    source = (
        "{% set a, b = (1, [2, {'k': 3}]) %}{% for k, v in {'x': [1]}.items() %}{{ k }}{{ v }}{% endfor %}"
        "{{ b[1].k }}{{ 1 in [a] }}{{ {'y': (1, 2)} }}{% set ns = namespace(l=[]) %}"
        "{% for m in messages %}{% set ns.l = ns.l + [m.content] %}{% endfor %}{{ ns.l }}"
    )
    assert render(source, USER, USER) == "x[1]3True{'y': (1, 2)}['hi', 'hi']"


def test_each_rendering_has_its_own_budget() -> None:
    template = ChatTemplate("{% for i in range(9999) %}{{ 'a' * 999 }}{% endfor %}")
    assert [len(template.render([USER])) for _ in range(3)] == [9999 * 999] * 3
