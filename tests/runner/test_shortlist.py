"""Tokens that are chosen from few candidates are those that llama.cpp chooses from its whole vocabulary."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from corral_server.runner.candidates import CandidateArray
from corral_server.runner.constrained import GrammarChooser
from corral_server.runner.generation import InvalidGrammar, Sampling, Task
from corral_server.runner.llama import ContextOptions, LlamaContext, LlamaModel
from corral_server.runner.sampling import Chooser, FreeChooser, _chain, chooser
from corral_server.runner.shortlist import MOST, Cut, ShortChooser, likeliest, settled
from tests.runner.engines import weights

VOCABULARY = 49152
SAMPLINGS = [
    Sampling(seed=1),
    Sampling(seed=2, top_k=1),
    Sampling(seed=3, temperature=0, repeat_penalty=1.3),
    Sampling(seed=4, temperature=1.5, top_k=100, top_p=1.0, repeat_penalty=1.1, presence_penalty=0.5),
    Sampling(seed=5, temperature=1.2, top_p=0.99, min_p=0.05, frequency_penalty=0.3),
    Sampling(seed=6, temperature=1.0, typical_p=0.7),
]
WORDS = "root ::= [a-z ]*"
DIGITS = "root ::= [0-9]*"


def random_logits(seed: int, size: int = VOCABULARY) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)


@pytest.mark.parametrize("count", [1, 40, 104, MOST])
@pytest.mark.parametrize("size", [300, 2048, 5000, VOCABULARY])
def test_the_likeliest_are_among_those_found(count: int, size: int) -> None:
    logits = random_logits(count, size)
    found = likeliest(logits, count)
    assert set(np.argsort(logits)[-min(count, size) :]) <= set(found)


def test_few_are_found_of_many() -> None:
    assert len(likeliest(random_logits(1), 40)) < 80


def test_all_that_tie_are_found() -> None:
    logits = np.zeros(VOCABULARY, dtype=np.float32)
    logits[::100] = 7
    assert list(likeliest(logits, 5)) == list(range(0, VOCABULARY, 100))


def test_logits_that_are_no_numbers_leave_the_choice_to_llama_cpp() -> None:
    assert len(likeliest(np.full(VOCABULARY, np.nan, dtype=np.float32), 40)) == VOCABULARY


def logits_of(*shares: float) -> NDArray[np.float32]:
    return np.array([math.log(share) for share in shares], dtype=np.float32)


@pytest.mark.parametrize(
    ("cut", "bound", "expected"),
    [
        (Cut(40, top_p=0.9), 1e-6, True),
        (Cut(40, top_p=0.9), 0.04, False),
        (Cut(40, top_p=0.94), 1e-6, True),
        (Cut(40, top_p=1.0), 1e-9, False),
        (Cut(40, penalized=64, top_p=0.9), 1e-9, False),
    ],
)
def test_others_are_left_out_only_when_top_p_would_drop_them_anyway(cut: Cut, bound: float, expected: bool) -> None:
    assert settled(logits_of(0.95, 0.04), float(np.log(bound)), cut) is expected


def test_nothing_settles_nothing() -> None:
    assert not settled(logits_of(), 0.0, Cut(40, top_p=0.9))


@pytest.fixture(scope="module")
def model() -> Iterator[LlamaModel]:
    model = LlamaModel(weights(), gpu_layers=0)
    yield model
    model.close()


@pytest.fixture(scope="module")
def context(model: LlamaModel) -> Iterator[LlamaContext]:
    context = model.context(ContextOptions(512, 1, batch=128))
    yield context
    context.close()


def said(model: LlamaModel, context: LlamaContext, chooser: Chooser, *, tokens: int) -> list[int]:
    """What follows a prompt, token by token."""
    context.clear()
    chosen = list(model.tokenize("Once upon a time", add_special=True, parse_special=False))
    start, new = len(chosen), chosen
    try:
        while len(chosen) < start + tokens:
            context.clear_batch()
            last = context.add(0, len(chosen) - len(new), new, outputs=1)
            assert context.decode() == 0
            new = [chooser.choose(context, last)]
            chosen = chosen + new
    finally:
        chooser.close()
    return chosen[start:]


@pytest.mark.process
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_what_is_chosen_from_few_is_what_llama_cpp_chooses_from_all(
    model: LlamaModel, context: LlamaContext, sampling: Sampling
) -> None:
    window = 64 if sampling.repeat_penalty != 1 or sampling.frequency_penalty else 0
    short = ShortChooser(_chain(model, sampling, context_length=512), Cut(sampling.top_k, window), model.vocab_size)
    whole = FreeChooser(_chain(model, sampling, context_length=512))
    assert said(model, context, short, tokens=24) == said(model, context, whole, tokens=24)


@pytest.mark.process
@pytest.mark.parametrize("grammar", [WORDS, DIGITS])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_what_a_grammar_allows_of_few_is_chosen_as_of_all(
    model: LlamaModel, context: LlamaContext, sampling: Sampling, grammar: str
) -> None:
    chain = _chain(model, sampling, context_length=512)
    whole = GrammarChooser(chain, model.grammar(grammar), model.vocab_size, cut=None)
    few = chooser(model, Task((1,), sampling, grammar=grammar), context_length=512)
    assert said(model, context, few, tokens=12) == said(model, context, whole, tokens=12)


@pytest.mark.process
def test_penalties_that_make_tokens_likelier_look_at_the_whole_vocabulary(
    model: LlamaModel, context: LlamaContext
) -> None:
    """What was far down may come first."""
    sampling = Sampling(temperature=0, repeat_penalty=0.2, presence_penalty=-50.0)
    task = Task(tuple(model.tokenize("zebra", add_special=False, parse_special=False)), sampling)
    assert isinstance(chooser(model, task, context_length=512), FreeChooser)


@pytest.mark.process
def test_a_grammar_that_allows_nothing_more_is_told_from_one_that_allows_only_unlikely_tokens(
    model: LlamaModel, context: LlamaContext
) -> None:
    for grammar, error in (('root ::= "\\u4e00"', None), ('root ::= "\\x00"', InvalidGrammar)):
        held = chooser(model, Task((1,), Sampling(temperature=0), grammar=grammar), context_length=512)
        if error is None:
            assert said(model, context, held, tokens=1)
        else:
            with pytest.raises(error):
                said(model, context, held, tokens=8)


def test_candidates_are_the_given_ones_with_their_logits() -> None:
    candidates = CandidateArray(10)
    candidates.fill(np.arange(10, dtype=np.float32), np.array([2, 7]))
    assert list(candidates.logits) == [2.0, 7.0]
    assert len(candidates) == 2
