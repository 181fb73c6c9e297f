"""Moves of generations to other slots, so that all are decoded in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_server.runner.engine.cache.compaction import plan_moves
from corral_server.runner.engine.cache.prefix_cache import count_passes
from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.engine.slots import Generation, Slot
from tests.runner.engine.fake_llama import make_generation
from tests.runner.engines import GREEDY, answer, answers, chat, weights


def generation(*, max_tokens: int = 1000, done: int = 100) -> Generation:
    made = make_generation(GenerationTask((1,), max_tokens=max_tokens))
    made.generated_tokens = [0] * done
    return made


def slots(running: set[int], count: int = 8, *, cells: int = 0, max_tokens: int = 1000) -> list[Slot]:
    made = [Slot(number, [7] * cells) for number in range(count)]
    for slot in made:
        slot.generation = generation(max_tokens=max_tokens) if slot.sequence in running else None
    return made


def moves(slots: list[Slot]) -> list[tuple[int, int]]:
    return [(source.sequence, target.sequence) for source, target in plan_moves(slots)]


def test_one_run_of_slots_stays_where_it_is() -> None:
    assert moves(slots({2, 3, 4})) == moves(slots({5})) == moves(slots(set())) == []


def test_a_single_slot_joins_the_others() -> None:
    assert moves(slots({0, 1, 5})) == [(5, 2)]


def test_a_move_into_a_gap_joins_two_runs() -> None:
    assert moves(slots({0, 1, 3, 4, 7})) == [(7, 2)]


def test_a_run_moves_as_a_whole() -> None:
    assert moves(slots({0, 1, 2, 5, 6})) == [(5, 3), (6, 4)]


def test_without_an_idle_slot_beside_the_others_nothing_moves() -> None:
    assert moves(slots({0, 2}, count=3, cells=5000)) == []


def test_a_generation_that_ends_soon_stays() -> None:
    assert moves(slots({0, 1, 5}, max_tokens=101)) == []


def test_a_generation_in_prefill_stays() -> None:
    made = slots({0, 1, 5})
    made[5].generation = generation(done=0)
    assert moves(made) == []


def test_the_emptiest_idle_slot_is_taken() -> None:
    made = slots({0, 3, 4})
    made[1].tokens, made[2].tokens, made[5].tokens = [7] * 40, [7] * 30, [7] * 20
    assert moves(made) == [(0, 5)]


def test_a_large_prefix_cache_is_not_given_up_for_a_small_gain() -> None:
    made = slots({0, 2})
    for number in (1, 3):
        made[number].tokens = [7] * 1000
    assert moves(made) == []


@given(st.sets(st.integers(0, 9)))
def test_moves_lead_to_idle_slots_and_save_passes(running: set[int]) -> None:
    after = set(running)
    for source, target in moves(slots(running, count=10)):
        assert source in after
        assert target not in running | after
        after = after - {source} | {target}
    assert count_passes(after) < count_passes(running) or after == running
    assert len(after) == len(running)


@pytest.mark.process
def test_an_answer_continues_unchanged_in_another_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=256, slots=6, batch_size=128, threads=1))
    try:
        batches: list[list[int]] = []
        add_tokens, clear_batch = engine._context.add_tokens, engine._context.clear_batch

        def record_tokens(sequence: int, position: int, tokens: Sequence[int], *, outputs: int) -> int:
            batches[-1].append(sequence)
            return add_tokens(sequence, position, tokens, outputs=outputs)

        def record_batch() -> None:
            batches.append([])
            clear_batch()

        questions = ("Who are you?", "Count to thirty.", "Tell me a story.", "Name a colour.")
        tasks = [
            GenerationTask(chat(engine, question), GREEDY, max_tokens=tokens)
            for question, tokens in zip(questions, (40, 6, 6, 40), strict=True)
        ]
        alone = [answer(engine, task).text for task in tasks]
        engine._cache.clear_idle_slots()
        monkeypatch.setattr(engine._context, "add_tokens", record_tokens)
        monkeypatch.setattr(engine._context, "clear_batch", record_batch)
        assert [got.text for got in answers(engine, *tasks)] == alone
        passes = [count_passes(batch) for batch in batches if len(batch) == 2]
        assert len(passes) > 20
        assert sum(passes) <= len(passes) + 3, "the gap is closed within a few steps"
        assert engine._cache.cells_used == engine.kv_cells_used
    finally:
        engine.close()
