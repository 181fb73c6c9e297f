"""Sampling from few candidates chooses the tokens that llama.cpp chooses from the whole vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from corral_server.runner.llama.context import LlamaContext
from corral_server.runner.llama.model import LlamaModel
from corral_server.runner.sampling.candidates import CandidateArray
from corral_server.runner.sampling.grammar_compiler import GrammarCompiler
from corral_server.runner.sampling.parameters import SamplingParameters
from corral_server.runner.sampling.sampler import ChainSampler, TokenSampler, make_chain, make_sampler
from corral_server.runner.sampling.shortlist import MAX_CANDIDATES, ShortlistSampler, top_candidates

VOCABULARY = 49152
PARAMETERS = [
    SamplingParameters(seed=1),
    SamplingParameters(seed=2, top_k=1),
    SamplingParameters(seed=3, temperature=0, repeat_penalty=1.3),
    SamplingParameters(seed=4, temperature=1.5, top_k=100, top_p=1.0, repeat_penalty=1.1, presence_penalty=0.5),
    SamplingParameters(seed=5, temperature=1.2, top_p=0.99, min_p=0.05, frequency_penalty=0.3),
    SamplingParameters(seed=6, temperature=1.0, typical_p=0.7),
]


def random_logits(seed: int, size: int = VOCABULARY) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)


@pytest.mark.parametrize("count", [1, 40, 104, MAX_CANDIDATES])
@pytest.mark.parametrize("size", [300, 2048, 5000, VOCABULARY])
def test_the_most_likely_tokens_are_candidates(count: int, size: int) -> None:
    logits = random_logits(count, size)
    found = top_candidates(logits, count)
    assert set(np.argsort(logits)[-min(count, size) :]) <= set(found)


def test_there_are_few_candidates_in_a_large_vocabulary() -> None:
    assert len(top_candidates(random_logits(1), 40)) < 80


def test_all_tokens_that_tie_are_candidates() -> None:
    logits = np.zeros(VOCABULARY, dtype=np.float32)
    logits[::100] = 7
    assert list(top_candidates(logits, 5)) == list(range(0, VOCABULARY, 100))


def test_with_logits_that_are_not_numbers_all_tokens_are_candidates() -> None:
    assert len(top_candidates(np.full(VOCABULARY, np.nan, dtype=np.float32), 40)) == VOCABULARY


def generate(model: LlamaModel, context: LlamaContext, sampler: TokenSampler, *, tokens: int) -> list[int]:
    """Return the tokens that the sampler chooses after a prompt."""
    context.clear()
    chosen = list(model.tokenize("Once upon a time", add_special=True, parse_special=False))
    start, new = len(chosen), chosen
    try:
        while len(chosen) < start + tokens:
            context.clear_batch()
            last = context.add_tokens(0, len(chosen) - len(new), new, outputs=1)
            assert context.decode() == 0
            new = [sampler.sample(context, last)]
            chosen = chosen + new
    finally:
        sampler.close()
    return chosen[start:]


@pytest.mark.process
@pytest.mark.parametrize("parameters", PARAMETERS)
def test_the_shortlist_chooses_what_llama_cpp_chooses_from_the_whole_vocabulary(
    model: LlamaModel, context: LlamaContext, parameters: SamplingParameters
) -> None:
    window = 64 if parameters.repeat_penalty != 1 or parameters.frequency_penalty else 0
    chains = [make_chain(parameters, vocab_size=model.vocab_size, context_length=512) for _ in range(2)]
    shortlist = ShortlistSampler(chains[0], parameters.top_k + window, model.vocab_size)
    expected = generate(model, context, ChainSampler(chains[1]), tokens=24)
    assert generate(model, context, shortlist, tokens=24) == expected


@pytest.mark.process
def test_penalties_that_make_tokens_more_likely_sample_from_the_whole_vocabulary(model: LlamaModel) -> None:
    """A token that was unlikely may become the most likely one."""
    sampler = make_sampler(
        model,
        SamplingParameters(temperature=0, repeat_penalty=0.2, presence_penalty=-50.0),
        prompt=model.tokenize("zebra", add_special=False, parse_special=False),
        grammar=None,
        context_length=512,
        grammars=GrammarCompiler(model.vocabulary),
    )
    assert isinstance(sampler, ChainSampler)
    sampler.close()


def test_candidates_are_the_given_tokens() -> None:
    candidates = CandidateArray(10)
    candidates.fill(np.arange(10, dtype=np.float32), np.array([2, 7]))
    assert len(candidates) == 2
