"""Drafts from what was said before, and that they change nothing but the speed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from corral_server.runner.engine import EngineOptions, LlamaEngine
from corral_server.runner.generation import Sampling, Task
from corral_server.runner.speculation import Lookup
from tests.runner.engines import GREEDY, answer, answers, chat, weights

QUOTE = "Repeat this text word by word: alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi."


def lookup(*tokens: int, most: int = 4) -> Lookup:
    made = Lookup(most)
    made.extend(tokens)
    return made


def test_a_text_that_said_the_like_goes_on_as_it_did_the_last_time() -> None:
    assert lookup(1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3).draft() == [4, 5, 6, 7]
    assert lookup(1, 2, 3, 4, 1, 2, 3, 9, 1, 2, 3, most=2).draft() == [9, 1]


def test_of_several_places_the_one_with_the_longer_match_counts() -> None:
    assert lookup(8, 1, 2, 3, 50, 9, 1, 2, 3, 60, 8, 1, 2, 3, most=1).draft() == [50]


def test_a_text_that_never_said_the_like_has_no_draft() -> None:
    assert lookup().draft() == lookup(1, 2).draft() == lookup(1, 2, 3, 4, 2, 3).draft() == []


def test_refused_drafts_pause_longer_and_longer() -> None:
    made, pauses = lookup(*[1] * 20), []
    for _ in range(3):
        made.note(4, 0)
        pause = 0
        while not made.draft():
            made.extend([1])
            pause += 1
        pauses.append(pause)
    assert pauses == [4, 8, 16]


def test_an_accepted_draft_shortens_the_next_pause_to_the_first() -> None:
    made = lookup(*[1] * 20)
    for accepted in (0, 0, 4, 0):
        made.note(4, accepted)
    made.extend([1] * 4)
    assert made.draft()


@pytest.fixture(scope="module")
def plain() -> Iterator[LlamaEngine]:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=256, slots=4, batch=128, threads=1))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def guessing() -> Iterator[LlamaEngine]:
    options = EngineOptions(context_length=256, slots=4, batch=128, threads=1, draft=4)
    engine = LlamaEngine.load(weights(), options)
    yield engine
    engine.close()


def decodes(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every decode."""
    calls: list[int] = []
    decode = engine._context.decode

    def counted() -> int:
        calls.append(1)
        return decode()

    monkeypatch.setattr(engine._context, "decode", counted)
    return calls


@pytest.mark.process
def test_a_repetitive_answer_takes_fewer_steps_and_is_the_same(
    plain: LlamaEngine, guessing: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(chat(plain, QUOTE), GREEDY, max_tokens=60)
    expected = answer(plain, task)
    calls = decodes(guessing, monkeypatch)
    got = answer(guessing, task)
    assert got.finish.generated == expected.finish.generated
    assert len(calls) < len(got.finish.generated) * 0.8
    assert guessing.cells_in_use == len(task.prompt) + len(got.finish.generated) - 1


@pytest.mark.process
def test_a_seed_gives_the_same_answer_with_drafts(plain: LlamaEngine, guessing: LlamaEngine) -> None:
    for seed in range(4):
        task = Task(chat(plain, QUOTE), Sampling(temperature=0.6, top_k=20, seed=seed), max_tokens=24)
        assert answer(guessing, task).text == answer(plain, task).text


@pytest.mark.process
def test_drafts_of_some_change_nothing_for_others(plain: LlamaEngine, guessing: LlamaEngine) -> None:
    questions = (QUOTE, "What is the capital of France?", QUOTE + " Again.", "Name a colour.")
    tasks = [Task(chat(plain, question), GREEDY, max_tokens=10) for question in questions]
    expected = [answer(plain, task).text for task in tasks]
    assert [got.text for got in answers(guessing, *tasks)] == expected


@pytest.mark.process
def test_drafts_stop_at_limits_stop_strings_grammars_and_a_full_window(
    plain: LlamaEngine, guessing: LlamaEngine
) -> None:
    task = Task(chat(plain, QUOTE), GREEDY, max_tokens=40)
    whole = answer(plain, task).text
    cases = [
        replace(task, max_tokens=27),
        replace(task, stop=(whole[50:55],)),
        replace(task, grammar='root ::= ("alpha beta gamma delta ")+', max_tokens=33),
        replace(task, max_tokens=400, grammar='root ::= ("one two three four five six ")+', shift=False),
        replace(task, max_tokens=300, grammar='root ::= ("one two three four five six ")+'),
    ]
    for case in cases:
        expected, got = answer(plain, case), answer(guessing, case)
        assert (got.text[:200], got.finish.reason) == (expected.text[:200], expected.finish.reason)
        assert len(got.finish.generated) == len(expected.finish.generated)
