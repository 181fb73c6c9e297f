"""Which generations move to another slot so that all are decoded together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_server.runner.compaction import moves
from corral_server.runner.engine import EngineOptions, LlamaEngine
from corral_server.runner.generation import Task
from corral_server.runner.sampling import Chooser
from corral_server.runner.sequence import Generation, Slot, passes
from corral_server.runner.stream import Stream
from corral_server.runner.text import TextAssembler
from tests.runner.engines import GREEDY, answer, answers, chat, weights


def generation(*, limit: int = 1000, done: int = 100) -> Generation:
    task = Task((1,))
    made = Generation(
        task,
        cast(Stream, None),
        cast(Chooser, None),
        prompt=(1,),
        keep=0,
        limit=limit,
        text=TextAssembler(),
    )
    made.generated = [0] * done
    return made


def slots(running: set[int], count: int = 8, *, cells: int = 0, limit: int = 1000) -> list[Slot]:
    made = [Slot(number, [7] * cells) for number in range(count)]
    for slot in made:
        slot.generation = generation(limit=limit) if slot.sequence in running else None
    return made


def moved(slots: list[Slot]) -> list[tuple[int, int]]:
    return [(source.sequence, target.sequence) for source, target in moves(slots)]


def test_one_run_of_slots_stays_where_it_is() -> None:
    assert moved(slots({2, 3, 4})) == moved(slots({5})) == moved(slots(set())) == []


def test_a_single_slot_joins_the_others() -> None:
    assert moved(slots({0, 1, 5})) == [(5, 2)]


def test_a_move_into_a_gap_joins_two_runs() -> None:
    assert moved(slots({0, 1, 3, 4, 7})) == [(7, 2)]


def test_a_run_moves_as_a_whole() -> None:
    assert moved(slots({0, 1, 2, 5, 6})) == [(5, 3), (6, 4)]


def test_without_an_idle_slot_beside_the_others_nothing_moves() -> None:
    assert moved(slots({0, 2}, count=3, cells=5000)) == []


def test_a_generation_that_ends_soon_stays() -> None:
    assert moved(slots({0, 1, 5}, limit=101)) == []


def test_a_generation_that_still_reads_its_prompt_stays() -> None:
    made = slots({0, 1, 5})
    made[5].generation = generation(done=0)
    assert moved(made) == []


def test_the_emptiest_idle_slot_is_taken() -> None:
    made = slots({0, 3, 4})
    made[1].cells, made[2].cells, made[5].cells = [7] * 40, [7] * 30, [7] * 20
    assert moved(made) == [(0, 5)]


def test_much_that_is_kept_for_later_is_not_given_up_for_a_short_gain() -> None:
    made = slots({0, 2})
    for number in (1, 3):
        made[number].cells = [7] * 1000
    assert moved(made) == []


@given(st.sets(st.integers(0, 9)))
def test_moves_lead_to_idle_slots_and_make_fewer_passes(running: set[int]) -> None:
    after = set(running)
    for source, target in moved(slots(running, count=10)):
        assert source in after
        assert target not in running | after
        after = after - {source} | {target}
    assert passes(after) < passes(running) or after == running
    assert len(after) == len(running)


@pytest.mark.process
def test_answers_go_on_in_another_slot_as_they_began(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=256, slots=6, batch=128, threads=1))
    try:
        batches: list[list[int]] = []
        add, clear = engine._context.add, engine._context.clear_batch

        def noted(sequence: int, position: int, tokens: Sequence[int], *, outputs: int) -> int:
            batches[-1].append(sequence)
            return add(sequence, position, tokens, outputs=outputs)

        def begun() -> None:
            batches.append([])
            clear()

        questions = ("Who are you?", "Count to thirty.", "Tell me a story.", "Name a colour.")
        tasks = [
            Task(chat(engine, question), GREEDY, max_tokens=tokens)
            for question, tokens in zip(questions, (40, 6, 6, 40), strict=True)
        ]
        alone = [answer(engine, task).text for task in tasks]
        engine._memory.forget_idle()
        monkeypatch.setattr(engine._context, "add", noted)
        monkeypatch.setattr(engine._context, "clear_batch", begun)
        assert [got.text for got in answers(engine, *tasks)] == alone
        pairs = [passes(batch) for batch in batches if len(batch) == 2]
        assert len(pairs) > 20
        assert sum(pairs) <= len(pairs) + 3, "the gap is closed within a few steps"
        assert engine.cells_in_use == sum(len(slot.cells) for slot in engine._slots)
    finally:
        engine.close()
