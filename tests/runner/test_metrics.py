"""What a runner tells Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, closing

import pytest

from corral_core.metrics import render
from corral_server.runner.engine import EngineOptions, LlamaEngine
from corral_server.runner.generation import Piece, Task
from corral_server.runner.metrics import exposition, families
from tests.runner.engines import GREEDY, ask, chat, weights
from tests.runner.test_speculation import QUOTE
from tests.support.exposition import families as read
from tests.support.exposition import problems, value
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import runner_state, served, serving
from tests.support.waiting import until

MODEL = "default/tiny"


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaEngine]:
    loaded = LlamaEngine.load(weights(), EngineOptions(context_length=512, slots=2))
    try:
        yield loaded
    finally:
        loaded.close()


def said(engine: LlamaEngine, name: str, **labels: str) -> float:
    state = runner_state(engine)
    return value(render([lambda: families(state)]), name, model=MODEL, **labels)


def test_the_page_is_clean_by_prometheus_own_checks() -> None:
    with serving(FakeEngine()) as runner:
        answer = runner.http.get("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert read(answer.text)["corral_runner_batch_sequences"] == "histogram"
        assert problems(answer.text) == ""
        assert value(answer.text, "corral_runner_slots", model=MODEL) == 2


def test_a_runner_that_loads_tells_how_far_it_is() -> None:
    state = runner_state()
    state.progress = 0.25
    with served(state) as runner:
        text = runner.http.get("/metrics").text
        assert value(text, "corral_runner_load_progress_ratio", model=MODEL) == 0.25
        assert value(text, "corral_runner_loaded", model=MODEL) == 0


@pytest.mark.process
def test_tokens_are_counted_as_the_answer_says_and_a_common_beginning_as_cached(engine: LlamaEngine) -> None:
    before = exposition(runner_state(engine))
    prompt = chat(engine, "Name a colour.")
    first = asyncio.run(ask(engine, Task(prompt, GREEDY, max_tokens=8))).finish
    second = asyncio.run(ask(engine, Task(prompt, GREEDY, max_tokens=8))).finish
    after = exposition(runner_state(engine))

    def grown(name: str) -> float:
        return value(after, f"corral_runner_{name}") - value(before, f"corral_runner_{name}")

    assert grown("generated_tokens_total") == len(first.generated) + len(second.generated)
    assert grown("prompt_cached_tokens_total") == first.cached_tokens + second.cached_tokens > 0
    read_anew = first.prompt_tokens + second.prompt_tokens - first.cached_tokens - second.cached_tokens
    assert grown("prompt_tokens_total") == read_anew
    assert grown("prefill_seconds_total") > 0
    assert grown("decode_seconds_total") > 0
    assert grown("decode_tokens_total") == grown("generated_tokens_total") - 2  # the first of each comes of its prompt
    assert 0 < value(after, "corral_runner_kv_cells_used") <= value(after, "corral_runner_kv_cells") == 1024


@pytest.mark.process
def test_generations_end_by_reason_the_clients_leaving_included(engine: LlamaEngine) -> None:
    asyncio.run(ask(engine, Task(chat(engine, "Hello"), GREEDY, max_tokens=2)))
    assert said(engine, "corral_runner_generations_total", reason="length") >= 1

    async def leave() -> None:
        async with aclosing(engine.generate(Task(chat(engine, "Tell me a long story"), GREEDY))) as items:
            assert isinstance(await anext(items), Piece)

    asyncio.run(leave())
    until(lambda: engine.running == 0)
    assert said(engine, "corral_runner_generations_total", reason="cancelled") == 1


@pytest.mark.process
def test_drafts_and_how_many_of_them_were_right_are_told_and_count_for_the_speed() -> None:
    options = EngineOptions(context_length=256, slots=1, batch=128, threads=1, draft=4)
    with closing(LlamaEngine.load(weights(), options)) as guessing:
        task = Task(chat(guessing, QUOTE), GREEDY, max_tokens=60)
        generated = len(asyncio.run(ask(guessing, task)).finish.generated)
        drafted = said(guessing, "corral_runner_draft_tokens_total")
        accepted = said(guessing, "corral_runner_draft_accepted_tokens_total")
        assert 0 < accepted <= drafted
        assert said(guessing, "corral_runner_decode_tokens_total") == generated - 1  # the first comes of the prompt


@pytest.mark.process
def test_sequences_that_run_together_show_in_the_batches(engine: LlamaEngine) -> None:
    async def both() -> None:
        task = Task(chat(engine, "Count to twenty"), GREEDY, max_tokens=12)
        await asyncio.gather(ask(engine, task), ask(engine, task))

    asyncio.run(both())
    alone = said(engine, "corral_runner_batch_sequences_bucket", le="1")
    assert said(engine, "corral_runner_batch_sequences_bucket", le="2") > alone
    assert said(engine, "corral_runner_sequences_running") == 0
