"""Speculative decoding changes the speed and not the answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.sampling.grammar import Grammar
from corral_server.runner.sampling.parameters import SamplingParameters
from tests.runner.engines import GREEDY, answer, answers, chat, weights, words

QUOTE = "Repeat this text word by word: alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi."


@pytest.fixture(scope="module")
def plain() -> Iterator[LlamaEngine]:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=256, slots=4, batch_size=128, threads=1))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def drafting() -> Iterator[LlamaEngine]:
    options = EngineOptions(context_length=256, slots=4, batch_size=128, threads=1, draft_tokens=4)
    engine = LlamaEngine.load(weights(), options)
    yield engine
    engine.close()


def count_decodes(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by one with every decode."""
    calls: list[int] = []
    decode = engine._context.decode

    def counted() -> int:
        calls.append(1)
        return decode()

    monkeypatch.setattr(engine._context, "decode", counted)
    return calls


@pytest.mark.process
def test_a_repetitive_answer_is_the_same_in_fewer_steps(
    plain: LlamaEngine, drafting: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompt repeats ten words ten times: every variant of the CPU backend goes on with them."""
    task = GenerationTask(words(plain, 100), GREEDY, max_tokens=60)
    expected = answer(plain, task)
    calls = count_decodes(drafting, monkeypatch)
    got = answer(drafting, task)
    assert got.result.tokens == expected.result.tokens
    assert len(calls) < len(got.result.tokens) * 0.8
    assert drafting._cache.cells_used == len(task.prompt) + len(got.result.tokens) - 1


@pytest.mark.process
def test_a_seed_gives_the_same_answer_with_drafts(plain: LlamaEngine, drafting: LlamaEngine) -> None:
    for seed in range(4):
        task = GenerationTask(
            chat(plain, QUOTE), SamplingParameters(temperature=0.6, top_k=20, seed=seed), max_tokens=24
        )
        assert answer(drafting, task).text == answer(plain, task).text


@pytest.mark.process
def test_drafts_do_not_change_the_answers_of_other_streams(plain: LlamaEngine, drafting: LlamaEngine) -> None:
    questions = (QUOTE, "What is the capital of France?", QUOTE + " Again.", "Name a colour.")
    tasks = [GenerationTask(chat(plain, question), GREEDY, max_tokens=10) for question in questions]
    expected = [answer(plain, task).text for task in tasks]
    assert [got.text for got in answers(drafting, *tasks)] == expected


@pytest.mark.process
def test_drafts_respect_limits_stop_strings_grammars_and_a_full_context(
    plain: LlamaEngine, drafting: LlamaEngine
) -> None:
    task = GenerationTask(chat(plain, QUOTE), GREEDY, max_tokens=40)
    whole = answer(plain, task).text
    cases = [
        replace(task, max_tokens=27),
        replace(task, stop=(whole[50:55],)),
        replace(task, grammar=Grammar('start: "alpha beta gamma delta "+'), max_tokens=33),
        replace(task, max_tokens=400, grammar=Grammar('start: "one two three four five six "+'), context_shift=False),
        replace(task, max_tokens=300, grammar=Grammar('start: "one two three four five six "+')),
    ]
    for case in cases:
        expected, got = answer(plain, case), answer(drafting, case)
        assert (got.text[:200], got.result.reason) == (expected.text[:200], expected.result.reason)
        assert len(got.result.tokens) == len(expected.result.tokens)
