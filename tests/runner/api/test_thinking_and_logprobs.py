"""Logprobs, thinking levels and ``_debug_render_only`` in Ollama's API and OpenAI's."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace

import pytest

from corral_server.runner.engine.generation import GenerationResult, GenerationTask
from corral_server.runner.sampling.grammar import Preamble
from corral_server.runner.sampling.lark import json_grammar
from corral_server.runner.sampling.text import TextChunk, TokenLogprob
from corral_server.runner.tool_calls.families.small_families import GENERIC
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import METADATA, ServedRunner, serving

CHAT, GENERATE, OPENAI = "/api/chat", "/api/generate", "/v1/chat/completions"
HELLO: dict[str, object] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
TEMPLATE = "{{ thinking }}{{ reasoning_effort }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"


class Weighing(FakeEngine):
    """A fake engine that returns logprobs."""

    async def generate(self, task: GenerationTask) -> AsyncGenerator[TextChunk | GenerationResult, None]:
        async for item in super().generate(task):
            if isinstance(item, TextChunk) and task.logprobs:
                other = TokenLogprob("no", -2.5, b"no")
                top = (other,) if task.top_logprobs else ()
                item = TextChunk(item.text, (TokenLogprob(item.text, -0.5, item.text.encode(), top),))
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
    metadata = replace(METADATA, capabilities=("completion", "thinking"))
    with serving(engine, template=TEMPLATE, metadata=metadata) as runner:
        yield runner


def test_each_chunk_of_a_stream_has_its_own_logprobs(runner: ServedRunner) -> None:
    lines = [json.loads(line) for line in runner.post(CHAT, HELLO | {"logprobs": True}).text.splitlines()]
    assert lines[2]["logprobs"] == [{"token": "4", "logprob": -0.5, "bytes": [52]}]
    assert "logprobs" not in lines[-1]


def test_top_logprobs_are_listed(runner: ServedRunner) -> None:
    body = runner.post(GENERATE, {"model": "tiny", "prompt": "x", "logprobs": True, "top_logprobs": 1, "stream": False})
    logprobs = body.json()["logprobs"]
    assert [item["token"] for item in logprobs] == ["<think>", "hm</think>", "4", "2"]
    assert logprobs[0]["top_logprobs"] == [{"token": "no", "logprob": -2.5, "bytes": [110, 111]}]


def test_logprobs_are_sent_with_the_text_that_was_held_back(thinker: ServedRunner) -> None:
    lines = [json.loads(line) for line in thinker.post(CHAT, HELLO | {"logprobs": True}).text.splitlines()]
    shown = [(line["message"].get("thinking", ""), line["message"]["content"]) for line in lines]
    assert shown == [("hm", ""), ("", "4"), ("", "2"), ("", "")]
    assert [len(line.get("logprobs", ())) for line in lines] == [2, 1, 1, 0]


def test_openai_logprobs_are_in_the_choice(runner: ServedRunner) -> None:
    choice = runner.post(OPENAI, HELLO | {"logprobs": True}).json()["choices"][0]
    assert choice["logprobs"]["content"][2] == {"token": "4", "logprob": -0.5, "bytes": [52], "top_logprobs": []}


def test_openai_streams_logprobs(runner: ServedRunner) -> None:
    events = runner.post(OPENAI, HELLO | {"logprobs": True, "stream": True}).text.split("\n\n")
    choice = json.loads(events[2].removeprefix("data: "))["choices"][0]
    assert choice["delta"] == {"content": "4"}
    assert [token["token"] for token in choice["logprobs"]["content"]] == ["4"]


def test_top_logprobs_without_logprobs_is_ignored(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(CHAT, HELLO | {"top_logprobs": 3})
    assert (engine.tasks[-1].logprobs, engine.tasks[-1].top_logprobs) == (False, 0)


@pytest.mark.parametrize(
    ("think", "expected"),
    [(None, "True"), (True, "True"), (False, "False"), ("low", "Truelow"), ("high", "Truehigh"), ("max", "Truehigh")],
)
def test_the_template_gets_the_thinking_level(
    thinker: ServedRunner, engine: FakeEngine, think: object, expected: str
) -> None:
    thinker.post(CHAT, HELLO | {"think": think})
    assert engine.prompt_text() == f"{expected}[user]hi"


@pytest.mark.parametrize(
    ("effort", "expected"),
    [
        ("none", "False"),
        ("minimal", "Truelow"),
        ("medium", "Truemedium"),
        ("xhigh", "Truehigh"),
        ("ultra", "Truehigh"),
        ("max", "Truehigh"),
    ],
)
def test_openais_reasoning_effort_is_mapped_to_a_level(
    thinker: ServedRunner, engine: FakeEngine, effort: str, expected: str
) -> None:
    thinker.post(OPENAI, HELLO | {"reasoning_effort": effort})
    assert engine.prompt_text() == f"{expected}[user]hi"


def test_an_unknown_reasoning_effort_is_refused(thinker: ServedRunner) -> None:
    response = thinker.post(OPENAI, HELLO | {"reasoning_effort": "lots"})
    allowed = '"minimal", "low", "medium", "high", "xhigh", "ultra", "max", or "none"'
    text = f'invalid reasoning value: "lots" (must be {allowed})'
    assert (response.status_code, response.json()["error"]["message"]) == (400, text)


def test_a_model_without_thinking_gets_no_thinking_variables(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(CHAT, HELLO)
    assert engine.prompt_text() == "[user]hi"


def test_debug_render_only_of_a_chat(runner: ServedRunner, engine: FakeEngine) -> None:
    body = runner.post(CHAT, HELLO | {"_debug_render_only": True}).json()
    assert body["_debug_info"] == {"rendered_template": "[user]hi"}
    assert (body["model"], body["done"], engine.tasks) == ("tiny", False, [])


def test_debug_render_only_of_a_generation(runner: ServedRunner) -> None:
    asked = {"model": "tiny", "prompt": "hi", "system": "s", "_debug_render_only": True}
    assert runner.post(GENERATE, asked).json()["_debug_info"] == {"rendered_template": "[system]s[user]hi"}


def test_max_completion_tokens_is_applied_when_max_tokens_is_unset(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(OPENAI, HELLO | {"max_completion_tokens": 9})
    assert engine.tasks[-1].max_tokens == 9


def test_a_format_constrains_the_answer_after_the_thinking(thinker: ServedRunner, engine: FakeEngine) -> None:
    thinker.post(CHAT, HELLO | {"format": "json"})
    assert engine.tasks[-1].grammar == json_grammar(
        {"type": "object"}, preamble=Preamble("<think>", "</think>"), markers=GENERIC.markers
    )
    thinker.post(CHAT, HELLO | {"format": "json", "think": False})
    assert engine.tasks[-1].grammar == json_grammar({"type": "object"}, markers=GENERIC.markers)
