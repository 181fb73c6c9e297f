"""Thinking is separated from the answer, wherever the text is cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_server.runner.tool_calls.thinking import ThinkingSplitter
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import METADATA, ServedRunner, serving

THOUGHTFUL = "\n<think>\nLet me <b> see.\n 1 < 2\n</think>\n\nIt is </think> 42.\n"


def split(*pieces: str, opened: bool = False) -> tuple[str, str]:
    splitter = ThinkingSplitter(opened=opened)
    shown = [*(splitter.push(piece) for piece in pieces), splitter.flush()]
    return "".join(part.thinking for part in shown), "".join(part.answer for part in shown)


@given(st.lists(st.integers(0, len(THOUGHTFUL)), max_size=12).map(sorted))
def test_the_result_does_not_depend_on_the_cuts(cuts: list[int]) -> None:
    ends = [*cuts, len(THOUGHTFUL)]
    pieces = [THOUGHTFUL[start:end] for start, end in zip([0, *cuts], ends, strict=True)]
    assert split(*pieces) == ("Let me <b> see.\n 1 < 2", "It is </think> 42.\n")


@given(st.text(alphabet="<>/think \n", max_size=30), st.integers(0, 30))
def test_text_without_an_opening_tag_is_the_answer(text: str, cut: int) -> None:
    text = "x" + text
    assert split(text[:cut], text[cut:]) == ("", text)


def test_an_opening_tag_in_the_prompt_starts_thinking() -> None:
    assert split("hm", " so</th", "ink>\n\nyes", opened=True) == ("hm so", "yes")


def test_unclosed_thinking() -> None:
    assert split("<think>a ", "b", " </thi") == ("a b </thi", "")


def test_an_incomplete_tag_at_the_end_is_text() -> None:
    assert split(" <thi") == ("", " <thi")


def test_thinking_streams() -> None:
    splitter = ThinkingSplitter()
    assert splitter.push("<think>one") == ("one", "")
    assert splitter.push(" two") == (" two", "")


SCRIPT = ("<think>", "hm", "</think>", "\n\n", "42")
HELLO: dict[str, object] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
OPENAI = "/v1/chat/completions"


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(script=SCRIPT)


@pytest.fixture
def runner(engine: FakeEngine) -> Iterator[ServedRunner]:
    template = "{{ enable_thinking }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with serving(
        engine, metadata=replace(METADATA, capabilities=("completion", "thinking")), template=template
    ) as runner:
        yield runner


def test_chat_streams_thinking_separately(runner: ServedRunner) -> None:
    messages = [json.loads(line)["message"] for line in runner.post("/api/chat", HELLO).text.splitlines()]
    assert messages == [
        {"role": "assistant", "content": "", "thinking": "hm"},
        {"role": "assistant", "content": "42"},
        {"role": "assistant", "content": ""},
    ]


def test_generate_returns_thinking_separately(runner: ServedRunner) -> None:
    body = runner.post("/api/generate", {"model": "tiny", "prompt": "hi", "think": True, "stream": False}).json()
    assert (body["response"], body["thinking"]) == ("42", "hm")


def test_think_false_and_raw_do_not_parse_the_text(runner: ServedRunner, engine: FakeEngine) -> None:
    for field in ({"think": False}, {"raw": True}):
        body = runner.post("/api/generate", {"model": "tiny", "prompt": "hi", "stream": False} | field).json()
        assert body["response"] == "".join(SCRIPT)
        assert "thinking" not in body


def test_the_template_gets_the_thinking_variables(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post("/api/chat", HELLO | {"think": False})
    assert engine.prompt_text() == "Falsehi"
    runner.post("/api/chat", HELLO | {"think": "low"})
    assert engine.prompt_text() == "Truehi"


def test_a_prompt_that_ends_with_the_tag_starts_thinking(runner: ServedRunner, engine: FakeEngine) -> None:
    engine.script = ("hm", "</think>", "42")
    body = runner.post("/api/chat", {"model": "tiny", "messages": [{"role": "user", "content": "<think>\n"}]})
    first = json.loads(body.text.splitlines()[0])["message"]
    assert (first["content"], first["thinking"]) == ("", "hm")


def test_openai_returns_thinking_as_reasoning(runner: ServedRunner) -> None:
    message = runner.post(OPENAI, HELLO).json()["choices"][0]["message"]
    assert (message["content"], message["reasoning"]) == ("42", "hm")


def test_openai_streams_reasoning_in_separate_chunks(runner: ServedRunner) -> None:
    events = runner.post(OPENAI, HELLO | {"stream": True}).text.split("\n\n")[:-2]
    deltas = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events]
    assert deltas == [{"role": "assistant", "reasoning": "hm"}, {"content": "42"}, {}]
