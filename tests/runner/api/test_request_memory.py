"""Requests that together take more memory than the runner has for them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import ServedRunner, runner_state, serving_state
from tests.support.waiting import until

MIB = 1 << 20
PATHS = ("/api/generate", "/api/chat", "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def runner(engine: FakeEngine) -> Iterator[ServedRunner]:
    state = runner_state(engine, spec={"embeddings": True})
    state.request_memory.total = 16 * MIB
    with serving_state(state) as runner:
        yield runner


def body(path: str, text: str) -> dict[str, object]:
    """Return a request of any API with this text."""
    fields: dict[str, object] = {"model": "tiny", "max_tokens": 5, "stream": False}
    if path.endswith(("generate", "/completions")) and "chat" not in path:
        return fields | {"prompt": text}
    if path.endswith("responses"):
        return fields | {"input": text}
    return fields | {"messages": [{"role": "user", "content": text}]}


@pytest.mark.parametrize("path", PATHS)
def test_a_request_over_the_budget_is_refused_with_413(runner: ServedRunner, engine: FakeEngine, path: str) -> None:
    refused = runner.post(path, body(path, "x" * 5 * MIB))
    assert refused.status_code == 413
    assert "MiB of memory, more than the 12 MiB" in refused.text
    assert runner.post(path, body(path, "x")).status_code == 200
    assert len(engine.tasks) == 1
    until(lambda: runner.state.request_memory.used == 0)


@pytest.mark.parametrize(
    "field",
    [
        {"context": [1] * 200_000},
        {"options": {f"{number}": 1 for number in range(60_000)}},
        {"format": "x🦙" * 300_000},
    ],
    ids=["values", "fields", "wide text"],
)
def test_a_small_body_of_many_values_is_refused_by_what_it_becomes(
    runner: ServedRunner, field: dict[str, object]
) -> None:
    content = json.dumps({"model": "tiny", "prompt": "x", **field}, ensure_ascii=False).encode()
    assert len(content) < 2 * MIB
    assert runner.post("/api/generate", raw=content).status_code == 413


def test_what_other_requests_hold_is_refused_with_503_and_retry_after(runner: ServedRunner, engine: FakeEngine) -> None:
    ends = threading.Event()
    engine.script = ("a", ends, "b")
    large = body("/api/generate", "x" * 3 * MIB)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(runner.post, "/api/generate", large)
        until(lambda: engine.running == 1)
        try:
            refused = runner.post("/api/generate", large)
            engine.script = ("a",)
            small = runner.post("/api/generate", body("/api/generate", "x"))
        finally:
            ends.set()
        assert first.result().status_code == 200
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert refused.json() == {"error": "the model's requests use all of its memory, please try again"}
    assert small.status_code == 200
    until(lambda: runner.state.request_memory.used == 0)
    assert runner.post("/api/generate", large).status_code == 200


def test_a_response_that_is_held_counts(runner: ServedRunner, engine: FakeEngine) -> None:
    engine.script = ["x" * 1000] * 4000
    refused = runner.post("/api/generate", {"model": "tiny", "prompt": "x", "stream": False})
    assert refused.status_code == 413
    streamed = runner.post("/api/generate", {"model": "tiny", "prompt": "x"})
    assert streamed.text.count("\n") == 4001


@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings"])
def test_vectors_count_before_they_are_computed(runner: ServedRunner, engine: FakeEngine, path: str) -> None:
    refused = runner.post(path, {"model": "tiny", "input": ["x"] * 2000})
    assert refused.status_code == 413
    assert engine.embedded == []
    assert runner.post(path, {"model": "tiny", "input": ["x"] * 20}).status_code == 200
