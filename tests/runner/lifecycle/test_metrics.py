"""Prometheus metrics of a runner."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, closing

import pytest

from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.lifecycle.metrics import families
from corral_server.runner.sampling.text import TextChunk
from tests.runner.engine.test_speculation import QUOTE
from tests.runner.engines import GREEDY, ask, chat, weights
from tests.support.exposition import expose_text, lint_metrics, sample_value
from tests.support.exposition import parse_metric_types as read
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import runner_state, serving, serving_state
from tests.support.waiting import auntil

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
    return sample_value(expose_text(lambda: families(state)), name, model=MODEL, **labels)


def test_the_exposition_passes_the_parser_checks() -> None:
    with serving(FakeEngine()) as runner:
        answer = runner.http.get("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert read(answer.text)["corral_runner_batch_sequences"] == "histogram"
        assert lint_metrics(answer.text) == ""
        assert sample_value(answer.text, "corral_runner_slots", model=MODEL) == 2


def test_load_progress_is_exposed() -> None:
    state = runner_state()
    state.progress = 0.25
    with serving_state(state) as runner:
        text = runner.http.get("/metrics").text
        assert sample_value(text, "corral_runner_load_progress_ratio", model=MODEL) == 0.25
        assert sample_value(text, "corral_runner_loaded", model=MODEL) == 0


@pytest.mark.process
async def test_token_counters_match_the_results_and_count_cached_prefixes(engine: LlamaEngine) -> None:
    before = expose_text(lambda: families(runner_state(engine)))
    prompt = chat(engine, "Name a colour.")
    first = (await ask(engine, GenerationTask(prompt, GREEDY, max_tokens=8))).result
    second = (await ask(engine, GenerationTask(prompt, GREEDY, max_tokens=8))).result
    after = expose_text(lambda: families(runner_state(engine)))

    def grown(name: str) -> float:
        return sample_value(after, f"corral_runner_{name}") - sample_value(before, f"corral_runner_{name}")

    assert grown("generated_tokens_total") == len(first.tokens) + len(second.tokens)
    assert grown("prompt_cached_tokens_total") == first.cached_tokens + second.cached_tokens > 0
    evaluated = first.prompt_tokens + second.prompt_tokens - first.cached_tokens - second.cached_tokens
    assert grown("prompt_tokens_total") == evaluated
    assert grown("prefill_seconds_total") > 0
    assert grown("decode_seconds_total") > 0
    assert grown("decode_tokens_total") == grown("generated_tokens_total") - 2  # minus the first of each
    assert (
        0
        < sample_value(after, "corral_runner_kv_cache_used_cells")
        <= sample_value(after, "corral_runner_kv_cache_cells")
        == 1024
    )


@pytest.mark.process
async def test_generations_are_counted_by_finish_reason_and_cancellation(engine: LlamaEngine) -> None:
    await ask(engine, GenerationTask(chat(engine, "Hello"), GREEDY, max_tokens=2))
    assert said(engine, "corral_runner_generations_total", reason="length") >= 1
    async with aclosing(engine.generate(GenerationTask(chat(engine, "Tell me a long story"), GREEDY))) as items:
        assert isinstance(await anext(items), TextChunk)
    await auntil(lambda: engine.running == 0)
    assert said(engine, "corral_runner_generations_total", reason="cancelled") == 1


@pytest.mark.process
async def test_drafted_and_accepted_tokens_are_counted() -> None:
    options = EngineOptions(context_length=256, slots=1, batch_size=128, threads=1, draft_tokens=4)
    with closing(LlamaEngine.load(weights(), options)) as guessing:
        task = GenerationTask(chat(guessing, QUOTE), GREEDY, max_tokens=60)
        generated = len((await ask(guessing, task)).result.tokens)
        drafted = said(guessing, "corral_runner_draft_tokens_total")
        accepted = said(guessing, "corral_runner_draft_accepted_tokens_total")
        assert 0 < accepted <= drafted
        assert said(guessing, "corral_runner_decode_tokens_total") == generated - 1  # minus the first


@pytest.mark.process
async def test_concurrent_sequences_are_counted_in_batches(engine: LlamaEngine) -> None:
    task = GenerationTask(chat(engine, "Count to twenty"), GREEDY, max_tokens=12)
    await asyncio.gather(ask(engine, task), ask(engine, task))
    alone = said(engine, "corral_runner_batch_sequences_bucket", le="1.0")
    assert said(engine, "corral_runner_batch_sequences_bucket", le="2.0") > alone
    assert said(engine, "corral_runner_running_sequences") == 0
