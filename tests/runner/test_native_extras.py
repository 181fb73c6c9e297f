"""Logprobs, thinking levels and the prompt alone, in the native API and OpenAI's."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace

import pytest

from corral_server.runner.generation import Finish, Piece, Task, TokenLogprob
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import FACTS, ServedRunner, serving

CHAT, GENERATE, OPENAI = "/api/chat", "/api/generate", "/v1/chat/completions"
HELLO: dict[str, object] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
TEMPLATE = "{{ thinking }}{{ reasoning_effort }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"


class Weighing(FakeEngine):
    """Says what it thought of each token, when asked."""

    async def generate(self, task: Task) -> AsyncGenerator[Piece | Finish, None]:
        async for item in super().generate(task):
            if isinstance(item, Piece) and task.logprobs:
                other = TokenLogprob("no", -2.5, b"no")
                top = (other,) if task.top_logprobs else ()
                item = Piece(item.text, (TokenLogprob(item.text, -0.5, item.text.encode(), top),))
            yield item


@pytest.fixture
def engine() -> FakeEngine:
    return Weighing(script=("<think>", "hm</think>", "4", "2"))


@pytest.fixture
def runner(engine: FakeEngine) -> Iterator[ServedRunner]:
    with serving(engine, template=TEMPLATE) as runner:
        yield runner


@pytest.fixture
def thinker(engine: FakeEngine) -> Iterator[ServedRunner]:
    facts = replace(FACTS, capabilities=("completion", "thinking"))
    with serving(engine, template=TEMPLATE, facts=facts) as runner:
        yield runner


def test_each_chunk_of_a_stream_carries_its_own_logprobs(runner: ServedRunner) -> None:
    lines = [json.loads(line) for line in runner.post(CHAT, HELLO | {"logprobs": True}).text.splitlines()]
    assert lines[2]["logprobs"] == [{"token": "4", "logprob": -0.5, "bytes": [52]}]
    assert "logprobs" not in lines[-1]


def test_top_logprobs_are_listed(runner: ServedRunner) -> None:
    body = runner.post(GENERATE, {"model": "tiny", "prompt": "x", "logprobs": True, "top_logprobs": 1, "stream": False})
    logprobs = body.json()["logprobs"]
    assert [item["token"] for item in logprobs] == ["<think>", "hm</think>", "4", "2"]
    assert logprobs[0]["top_logprobs"] == [{"token": "no", "logprob": -2.5, "bytes": [110, 111]}]


def test_logprobs_go_with_the_text_that_was_held_back(thinker: ServedRunner) -> None:
    lines = [json.loads(line) for line in thinker.post(CHAT, HELLO | {"logprobs": True}).text.splitlines()]
    shown = [(line["message"].get("thinking", ""), line["message"]["content"]) for line in lines]
    assert shown == [("hm", ""), ("", "4"), ("", "2"), ("", "")]
    assert [len(line.get("logprobs", ())) for line in lines] == [2, 1, 1, 0]


def test_openai_puts_logprobs_into_the_choice(runner: ServedRunner) -> None:
    choice = runner.post(OPENAI, HELLO | {"logprobs": True}).json()["choices"][0]
    assert choice["logprobs"]["content"][2] == {"token": "4", "logprob": -0.5, "bytes": [52], "top_logprobs": []}


def test_openai_streams_logprobs(runner: ServedRunner) -> None:
    events = runner.post(OPENAI, HELLO | {"logprobs": True, "stream": True}).text.split("\n\n")
    choice = json.loads(events[2].removeprefix("data: "))["choices"][0]
    assert choice["delta"] == {"content": "4"}
    assert [token["token"] for token in choice["logprobs"]["content"]] == ["4"]


def test_top_logprobs_alone_ask_for_nothing(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(CHAT, HELLO | {"top_logprobs": 3})
    assert (engine.tasks[-1].logprobs, engine.tasks[-1].top_logprobs) == (False, 0)


@pytest.mark.parametrize(
    ("think", "expected"),
    [(None, "True"), (True, "True"), (False, "False"), ("low", "Truelow"), ("high", "Truehigh"), ("max", "Truehigh")],
)
def test_the_template_is_told_how_much_to_think(
    thinker: ServedRunner, engine: FakeEngine, think: object, expected: str
) -> None:
    thinker.post(CHAT, HELLO | {"think": think})
    assert engine.prompt_text() == f"{expected}[user]hi"


@pytest.mark.parametrize(
    ("effort", "expected"),
    [("none", "False"), ("minimal", "Truelow"), ("medium", "Truemedium"), ("xhigh", "Truehigh")],
)
def test_openais_effort_is_a_level(thinker: ServedRunner, engine: FakeEngine, effort: str, expected: str) -> None:
    thinker.post(OPENAI, HELLO | {"reasoning_effort": effort})
    assert engine.prompt_text() == f"{expected}[user]hi"


def test_an_unknown_effort_is_refused(thinker: ServedRunner) -> None:
    response = thinker.post(OPENAI, HELLO | {"reasoning_effort": "lots"})
    text = 'invalid reasoning value: "lots" (must be "high", "medium", "low", "max", or "none")'
    assert (response.status_code, response.json()["error"]["message"]) == (400, text)


def test_a_model_that_does_not_think_is_told_nothing(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(CHAT, HELLO)
    assert engine.prompt_text() == "[user]hi"


def test_a_chats_prompt_alone(runner: ServedRunner, engine: FakeEngine) -> None:
    body = runner.post(CHAT, HELLO | {"_debug_render_only": True}).json()
    assert body["_debug_info"] == {"rendered_template": "[user]hi"}
    assert (body["model"], body["done"], engine.tasks) == ("tiny", False, [])


def test_a_generations_prompt_alone(runner: ServedRunner) -> None:
    asked = {"model": "tiny", "prompt": "hi", "system": "s", "_debug_render_only": True}
    assert runner.post(GENERATE, asked).json()["_debug_info"] == {"rendered_template": "[system]s[user]hi"}


def test_max_completion_tokens_is_read_where_max_tokens_is_not_given(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(OPENAI, HELLO | {"max_completion_tokens": 9})
    assert engine.tasks[-1].max_tokens == 9


def test_a_model_that_thinks_does_so_before_its_answer_is_held_to_a_format(
    thinker: ServedRunner, engine: FakeEngine
) -> None:
    thinker.post(CHAT, HELLO | {"format": "json"})
    grammar = engine.tasks[-1].grammar
    assert grammar is not None
    assert grammar.startswith('root ::= ("<think>" thought "</think>" blank)? answer\n')
    thinker.post(CHAT, HELLO | {"format": "json", "think": False})
    assert (engine.tasks[-1].grammar or "").startswith("root ::= object\n")
