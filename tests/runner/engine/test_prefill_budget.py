"""Prompt tokens of one step."""

from __future__ import annotations

from corral_server.runner.engine.prefill_budget import (
    IDLE_MIN_TOKENS,
    IDLE_SECONDS,
    INITIAL_TOKENS,
    STREAMING_MIN_TOKENS,
    STREAMING_SECONDS,
    PrefillBudget,
)


def measured(tokens_per_second: float) -> PrefillBudget:
    """Return a budget after one step with this speed."""
    budget = PrefillBudget(512)
    budget.record_step(512, 512 / tokens_per_second)
    return budget


def test_without_running_streams_the_budget_is_a_whole_batch() -> None:
    assert measured(800).tokens_per_step(streaming=False) == 512


def test_beside_running_streams_the_budget_is_bounded_by_their_pause() -> None:
    assert measured(800).tokens_per_step(streaming=True) == int(800 * STREAMING_SECONDS)


def test_on_a_slow_machine_the_budget_is_bounded_without_streams_too() -> None:
    assert measured(100).tokens_per_step(streaming=False) == int(100 * IDLE_SECONDS)


def test_the_first_chunk_is_small_because_the_speed_is_unknown() -> None:
    assert PrefillBudget(512).tokens_per_step(streaming=False) == INITIAL_TOKENS


def test_on_a_fast_machine_the_budget_is_a_whole_batch_beside_streams() -> None:
    assert measured(50_000).tokens_per_step(streaming=True) == 512


def test_the_budget_has_a_minimum() -> None:
    assert measured(0.1).tokens_per_step(streaming=True) == STREAMING_MIN_TOKENS
    assert measured(0.1).tokens_per_step(streaming=False) == IDLE_MIN_TOKENS


def test_the_batch_capacity_is_the_limit() -> None:
    assert PrefillBudget(16).tokens_per_step(streaming=True) == 16


def test_steps_of_few_tokens_do_not_count() -> None:
    budget = measured(1000)
    before = budget.tokens_per_step(streaming=True)
    budget.record_step(4, 1.0)
    budget.record_step(512, 0.0)
    assert budget.tokens_per_step(streaming=True) == before


def test_the_budget_follows_a_change_of_speed() -> None:
    budget = measured(1000)
    for _ in range(20):
        budget.record_step(250, 1.0)
    assert int(250 * STREAMING_SECONDS) <= budget.tokens_per_step(streaming=True) < 260 * STREAMING_SECONDS
