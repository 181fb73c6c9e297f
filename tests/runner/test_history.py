"""Messages as templates expect them, and what a template is found to want."""

from __future__ import annotations

from corral_server.runner.history import Message, Style, as_templates_expect
from corral_server.runner.templates import ChatTemplate

CALL = {"id": "call_abcdefgh", "function": {"name": "f", "arguments": {"a": 1}}}
CHAT: list[Message] = [
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [CALL]},
    {"role": "tool", "content": "y", "tool_call_id": "call_abcdefgh"},
]
_LOOP = "{% for m in messages %}{% for c in m.tool_calls or [] %}"


def test_thinking_has_both_names() -> None:
    message = as_templates_expect(CHAT, Style())[1]
    assert (message["thinking"], message["reasoning_content"]) == ("hm", "hm")


def test_a_result_is_named_after_its_call() -> None:
    result = as_templates_expect(CHAT, Style())[2]
    assert (result["name"], result["tool_name"]) == ("f", "f")


def test_a_result_without_an_id_answers_the_first_open_call() -> None:
    calls = [{"id": "a", "function": {"name": "f"}}, {"id": "b", "function": {"name": "g"}}]
    chat: list[Message] = [
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "2"},
    ]
    results = as_templates_expect(chat, Style())[1:]
    assert [(result["tool_call_id"], result["name"]) for result in results] == [("a", "f"), ("b", "g")]


def test_ids_of_nine_characters_are_the_same_for_call_and_result() -> None:
    _, answer, result = as_templates_expect(CHAT, Style(short_ids=True))
    calls = answer["tool_calls"]
    assert isinstance(calls, list)
    assert calls[0]["id"] == result["tool_call_id"]
    assert len(calls[0]["id"]) == 9
    assert calls[0]["id"].isalnum()


def test_a_template_that_writes_json_gets_objects() -> None:
    template = ChatTemplate(_LOOP + "{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}")
    assert template.render(CHAT) == '{"a": 1}'


def test_a_template_that_joins_texts_gets_json() -> None:
    template = ChatTemplate(_LOOP + "{{ '(' + c.function.arguments + ')' }}{% endfor %}{% endfor %}")
    assert template.render(CHAT) == '({"a": 1})'


def test_a_template_that_wants_short_ids_gets_them() -> None:
    check = "{% if c.id | length != 9 %}{{ raise_exception('length 9!') }}{% endif %}{{ c.id | length }}"
    assert ChatTemplate(_LOOP + check + "{% endfor %}{% endfor %}").render(CHAT) == "9"
