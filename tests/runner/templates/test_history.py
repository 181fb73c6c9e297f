"""Normalization of messages for chat templates, and detection of a template's style."""

from __future__ import annotations

from corral_server.runner.templates.history import Message, MessageStyle, normalize_messages
from corral_server.runner.templates.templates import ChatTemplate

CALL = {"id": "call_abcdefgh", "function": {"name": "f", "arguments": {"a": 1}}}
CHAT: list[Message] = [
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [CALL]},
    {"role": "tool", "content": "y", "tool_call_id": "call_abcdefgh"},
]
_LOOP = "{% for m in messages %}{% for c in m.tool_calls or [] %}"


def test_thinking_is_passed_under_both_names() -> None:
    message = normalize_messages(CHAT, MessageStyle())[1]
    assert (message["thinking"], message["reasoning_content"]) == ("hm", "hm")


def test_a_result_gets_the_name_of_its_call() -> None:
    result = normalize_messages(CHAT, MessageStyle())[2]
    assert (result["name"], result["tool_name"]) == ("f", "f")


def test_a_result_without_an_id_belongs_to_the_first_open_call() -> None:
    calls = [{"id": "a", "function": {"name": "f"}}, {"id": "b", "function": {"name": "g"}}]
    chat: list[Message] = [
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "2"},
    ]
    results = normalize_messages(chat, MessageStyle())[1:]
    assert [(result["tool_call_id"], result["name"]) for result in results] == [("a", "f"), ("b", "g")]


def test_ids_of_nine_characters_are_the_same_for_call_and_result() -> None:
    _, answer, result = normalize_messages(CHAT, MessageStyle(short_ids=True))
    calls = answer["tool_calls"]
    assert isinstance(calls, list)
    assert calls[0]["id"] == result["tool_call_id"]
    assert len(calls[0]["id"]) == 9
    assert calls[0]["id"].isalnum()


def test_a_template_that_writes_json_gets_objects() -> None:
    template = ChatTemplate(_LOOP + "{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}")
    assert template.render(CHAT) == '{"a": 1}'


def test_a_template_that_concatenates_arguments_gets_json_text() -> None:
    template = ChatTemplate(_LOOP + "{{ '(' + c.function.arguments + ')' }}{% endfor %}{% endfor %}")
    assert template.render(CHAT) == '({"a": 1})'


def test_a_template_that_requires_short_ids_gets_them() -> None:
    check = "{% if c.id | length != 9 %}{{ raise_exception('length 9!') }}{% endif %}{{ c.id | length }}"
    assert ChatTemplate(_LOOP + check + "{% endfor %}{% endfor %}").render(CHAT) == "9"
