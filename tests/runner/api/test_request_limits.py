"""A request that reaches a limit of its gateway ends normally, with the output so far and the reason ``length``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import cast

import pytest

from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import ServedRunner, runner_state, serving_state
from tests.support.tiny_model import TEMPLATE, write_tiny_model

pytestmark = pytest.mark.process

CONTEXT = 2048
MESSAGES: dict[str, object] = {"messages": [{"role": "user", "content": "Count."}]}
TOKENS = {"corral-max-output-tokens": "5"}
DURATION = {"corral-max-duration-ms": "400"}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedRunner]:
    path = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    engine = LlamaEngine.load(path, EngineOptions(context_length=CONTEXT, slots=2, batch_size=64, threads=1))
    state = runner_state(cast(FakeEngine, engine), template=TEMPLATE, spec={"parameters": {"temperature": 0}})
    with serving_state(state) as runner:  # an engine is an engine
        yield runner
    engine.close()


def post(runner: ServedRunner, path: str, fields: dict[str, object], headers: dict[str, str]) -> dict[str, object]:
    answer = runner.http.post(path, json={"model": "tiny", "stream": False, **fields}, headers=headers)
    assert answer.status_code == 200
    found: dict[str, object] = answer.json()
    return found


@pytest.mark.parametrize("asked", [None, 3, 1000])
def test_a_client_gets_no_more_tokens_than_the_limit(runner: ServedRunner, asked: int | None) -> None:
    options = {"options": {"num_predict": asked}} if asked else {}
    answer = post(runner, "/api/generate", {"prompt": "a", **options}, TOKENS)
    assert (answer["eval_count"], answer["done_reason"]) == (3 if asked == 3 else 5, "length")


def test_every_api_has_its_own_reason(runner: ServedRunner) -> None:
    chat = post(runner, "/api/chat", MESSAGES, TOKENS)
    assert (chat["done_reason"], chat["eval_count"]) == ("length", 5)
    prompt: dict[str, object] = {"prompt": "a"}
    for path, fields in (("/v1/chat/completions", MESSAGES), ("/v1/completions", prompt)):
        choices = cast(list[dict[str, object]], post(runner, path, fields, TOKENS)["choices"])
        assert choices[0]["finish_reason"] == "length"
    message = post(runner, "/v1/messages", {**MESSAGES, "max_tokens": 1000}, TOKENS)
    assert message["stop_reason"] == "max_tokens"
    response = post(runner, "/v1/responses", {"input": "Count."}, TOKENS)
    assert cast(dict[str, object], response["usage"])["output_tokens"] == 5


def test_a_stream_ends_with_the_reason(runner: ServedRunner) -> None:
    answer = runner.http.post("/api/chat", json={"model": "tiny", **MESSAGES}, headers=TOKENS)
    last = json.loads(answer.text.splitlines()[-1])
    assert (last["done"], last["done_reason"], last["eval_count"]) == (True, "length", 5)


def test_a_generation_ends_when_its_time_is_over(runner: ServedRunner) -> None:
    """Ten contexts take many times as long."""
    start = time.monotonic()
    schema = {"type": "string", "minLength": 100_000}
    answer = post(runner, "/api/generate", {"prompt": "a", "format": schema}, DURATION)
    assert answer["done_reason"] == "length"
    assert 0 < cast(int, answer["eval_count"]) < 10 * CONTEXT
    assert cast(str, answer["response"]).startswith('"')
    assert cast(int, answer["eval_duration"]) < 10 * 400_000_000
    assert time.monotonic() - start > 0.4


def test_pending_time_does_not_count(runner: ServedRunner) -> None:
    queued = {**TOKENS, **DURATION, "corral-queued-ns": "5000000000"}
    assert post(runner, "/api/generate", {"prompt": "a"}, queued)["eval_count"] == 5


def test_without_limits_a_request_has_those_of_the_context() -> None:
    engine = FakeEngine()
    with serving_state(runner_state(engine)) as runner:
        runner.post("/api/generate", {"model": "tiny", "prompt": "a"})
        runner.http.post("/api/generate", json={"model": "tiny", "prompt": "a"}, headers=TOKENS | DURATION)
    assert [(task.max_tokens, task.max_seconds) for task in engine.tasks] == [(-1, 0.0), (5, 0.4)]
