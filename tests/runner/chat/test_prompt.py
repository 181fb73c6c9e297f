"""Truncation of chats to the context: the oldest messages are dropped, system messages and the last are kept."""

from __future__ import annotations

from corral_server.runner.chat.prompt import render_chat_prompt, tokenize_prompt
from corral_server.runner.templates.templates import ChatTemplate
from tests.runner.tool_calls.transcripts import WEATHER
from tests.support.fake_engine import BOS, FakeEngine
from tests.support.runner_server import TEMPLATE

CHAT = [
    {"role": "system", "content": "S"},
    *({"role": "user", "content": f"{index:02}" + "x" * 18} for index in range(20)),
]


def prompt(engine: FakeEngine, messages: list[dict[str, str]], *, truncate: bool = True) -> str:
    template = ChatTemplate(TEMPLATE, bos=engine.bos_text)
    length = engine.context_length
    found = render_chat_prompt(engine, template, messages, truncate=truncate, context_length=length, variables={})
    return engine.detokenize(found.tokens)


def test_a_chat_that_fits_is_complete() -> None:
    assert prompt(FakeEngine(), CHAT).count("[user]") == 20


def test_truncation_keeps_as_many_latest_messages_as_fit() -> None:
    text = prompt(FakeEngine(context_length=120), CHAT)
    assert text.startswith("[system]S[user]17")
    assert len(text) < 120 <= len(text) + len(CHAT[1]["content"]) + len("[user]") + 1


def test_the_last_message_is_always_kept() -> None:
    assert prompt(FakeEngine(context_length=10), CHAT).startswith("[system]S[user]19")


def test_a_single_message_is_not_truncated() -> None:
    assert prompt(FakeEngine(context_length=10), CHAT[1:2]).startswith("[user]00")


def test_without_truncate_nothing_is_dropped() -> None:
    assert prompt(FakeEngine(context_length=10), CHAT, truncate=False).count("[user]") == 20


def test_a_bos_token_of_the_template_is_not_doubled() -> None:
    engine = FakeEngine()
    assert tokenize_prompt(engine, "<s>a") == [BOS, ord("a")]
    assert tokenize_prompt(engine, "a") == [BOS, ord("a")]


def test_a_model_without_bos_keeps_the_templates_bos() -> None:
    assert tokenize_prompt(FakeEngine(adds_bos=False), "<s>a") == [BOS, ord("a")]


def test_a_template_without_tools_gets_tool_instructions() -> None:
    source = TEMPLATE + "{# <tool_call> #}"
    found = render_chat_prompt(
        FakeEngine(),
        ChatTemplate(source),
        CHAT[:2],
        truncate=True,
        context_length=4096,
        variables={},
        tools=[WEATHER],
    )
    assert '"name":"get_weather"' in found.text
    assert found.text.startswith("[system]S\n\nYou may call these functions:")
    assert '<tool_call>\n{"name": "NAME", "arguments": {...}}\n</tool_call>' in found.text
