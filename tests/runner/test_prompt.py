"""Chats cut to the context: the oldest messages go, the system's and the last stay."""

from __future__ import annotations

from corral_server.runner.prompt import chat_prompt, tokens_of
from corral_server.runner.templates import ChatTemplate
from tests.runner.formats.transcripts import WEATHER
from tests.support.fake_engine import BOS, FakeEngine
from tests.support.runner_server import TEMPLATE

CHAT = [
    {"role": "system", "content": "S"},
    *({"role": "user", "content": f"{index:02}" + "x" * 18} for index in range(20)),
]


def prompt(engine: FakeEngine, messages: list[dict[str, str]], *, truncate: bool = True) -> str:
    template = ChatTemplate(TEMPLATE, bos=engine.bos_text)
    found = chat_prompt(engine, template, messages, truncate=truncate, variables={})
    return engine.detokenize(found.tokens)


def test_a_chat_that_fits_is_whole() -> None:
    assert prompt(FakeEngine(), CHAT).count("[user]") == 20


def test_as_many_of_the_latest_messages_stay_as_fit() -> None:
    text = prompt(FakeEngine(context_length=120), CHAT)
    assert text.startswith("[system]S[user]17")
    assert len(text) < 120 <= len(text) + len(CHAT[1]["content"]) + len("[user]") + 1


def test_the_last_message_is_kept_even_if_it_does_not_fit() -> None:
    assert prompt(FakeEngine(context_length=10), CHAT).startswith("[system]S[user]19")


def test_one_message_alone_is_left_to_the_engine() -> None:
    assert prompt(FakeEngine(context_length=10), CHAT[1:2]).startswith("[user]00")


def test_without_truncate_nothing_is_dropped() -> None:
    assert prompt(FakeEngine(context_length=10), CHAT, truncate=False).count("[user]") == 20


def test_a_bos_that_the_template_wrote_is_not_doubled() -> None:
    engine = FakeEngine()
    assert tokens_of(engine, "<s>a") == [BOS, ord("a")]
    assert tokens_of(engine, "a") == [BOS, ord("a")]


def test_a_model_that_adds_no_bos_keeps_the_templates() -> None:
    assert tokens_of(FakeEngine(adds_bos=False), "<s>a") == [BOS, ord("a")]


def test_a_template_that_names_no_tools_gets_a_note_of_them() -> None:
    source = TEMPLATE + "{# <tool_call> #}"
    found = chat_prompt(FakeEngine(), ChatTemplate(source), CHAT[:2], truncate=True, variables={}, tools=[WEATHER])
    assert '"name":"get_weather"' in found.text
    assert found.text.startswith("[system]S\n\nYou may call these functions:")
    assert '<tool_call>\n{"name": "NAME", "arguments": {...}}\n</tool_call>' in found.text
