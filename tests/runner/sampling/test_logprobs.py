"""What the model thought of its tokens: the figures, and the text that they come with."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationResult, GenerationTask
from corral_server.runner.sampling.grammar import Grammar
from corral_server.runner.sampling.logprobs import LogprobScorer, ScoredTextAssembler
from corral_server.runner.sampling.parameters import SamplingParameters
from corral_server.runner.sampling.text import TextAssembler, TextChunk
from tests.runner.engines import GREEDY, chat, weights


def bits(*logits: float) -> memoryview:
    return memoryview(array("f", logits)).cast("B").cast("i")


def name(token: int) -> bytes:
    return b"abcdefgh"[token : token + 1]


def run(tokens: Sequence[bytes], stop: Sequence[str] = ()) -> list[TextChunk]:
    """The pieces of a generation whose n-th token has the number n and the given bytes."""
    text = TextAssembler(stop)
    scored = ScoredTextAssembler(text, LogprobScorer(lambda token: tokens[token], 0))
    logits, pieces = bits(*[0.0] * len(tokens)), list[TextChunk | None]()
    for number, data in enumerate(tokens):
        pieces.append(scored.push(data, number, logits=logits))
        if text.stopped:
            break
    return [piece for piece in (*pieces, scored.flush()) if piece is not None]


def said(pieces: Sequence[TextChunk]) -> list[tuple[str, list[bytes]]]:
    return [(piece.text, [one.token_bytes for one in piece.logprobs]) for piece in pieces]


def test_a_logprob_is_the_natural_logarithm_of_the_probability() -> None:
    scored = LogprobScorer(name, 0).score(bits(math.log(1), math.log(3), math.log(4)), 1)
    assert (scored.token, scored.token_bytes, scored.top) == ("b", b"b", ())
    assert scored.logprob == pytest.approx(math.log(3 / 8))


def test_top_tokens_are_ordered_by_logprob_then_by_id() -> None:
    top = LogprobScorer(name, 3).score(bits(0, 2, 1, 2, 2), 0).top
    assert [one.token for one in top] == ["b", "d", "e"]
    assert len({one.logprob for one in top}) == 1


def test_top_is_limited_by_the_vocabulary() -> None:
    assert [one.token for one in LogprobScorer(name, 20).score(bits(0, 2, 1), 0).top] == ["b", "c", "a"]


def test_an_impossible_token_has_a_finite_logprob() -> None:
    scored = LogprobScorer(name, 2).score(bits(0, -math.inf), 1)
    assert math.isfinite(scored.logprob)
    assert scored.top[0].logprob == 0.0


def test_each_token_comes_with_its_text() -> None:
    assert said(run([b"Hel", b"lo", b"!"])) == [("Hel", [b"Hel"]), ("lo", [b"lo"]), ("!", [b"!"])]


def test_the_tokens_of_one_character_come_together() -> None:
    moon = "🌙".encode()
    assert said(run([b"a", moon[:1], moon[1:3], moon[3:] + b"b"])) == [
        ("a", [b"a"]),
        ("🌙b", [moon[:1], moon[1:3], moon[3:] + b"b"]),
    ]


def test_a_token_that_ends_within_a_character_is_held_back() -> None:
    moon = "é".encode()
    assert said(run([b"a" + moon[:1], moon[1:]])) == [("a", []), ("é", [b"a" + moon[:1], moon[1:]])]


def test_tokens_of_a_partial_stop_string_are_held_back() -> None:
    assert said(run([b"a", b"S", b"T", b"x"], ["STOP"])) == [("a", [b"a"]), ("STx", [b"S", b"T", b"x"])]


def test_tokens_of_a_stop_string_are_removed_except_one_that_begins_before_it() -> None:
    assert said(run([b"a", b"bS", b"TO", b"P."], ["STOP"])) == [("a", [b"a"]), ("b", []), ("", [b"bS"])]


def test_flushed_text_comes_with_its_tokens() -> None:
    assert said(run([b"a", b"ST"], ["STOP"])) == [("a", [b"a"]), ("ST", [b"ST"])]


@given(st.text(max_size=40), st.lists(st.integers(1, 5), min_size=1, max_size=5), st.booleans())
def test_without_a_stop_every_token_comes_once_in_order(text: str, sizes: list[int], holding: bool) -> None:
    data, tokens, turn = text.encode(), list[bytes](), 0
    while data:
        size = sizes[turn % len(sizes)]
        tokens.append(data[:size])
        data, turn = data[size:], turn + 1
    pieces = run(tokens, ["never \0 said"] if holding else ())
    assert "".join(piece.text for piece in pieces) == text
    assert [one.token_bytes for piece in pieces for one in piece.logprobs] == tokens


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaEngine]:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=256, slots=2, batch_size=128, threads=1))
    yield engine
    engine.close()


def pieces_of(engine: LlamaEngine, task: GenerationTask) -> tuple[list[TextChunk], GenerationResult]:
    async def scenario() -> tuple[list[TextChunk], GenerationResult]:
        pieces: list[TextChunk] = []
        async with aclosing(engine.generate(task)) as items:
            async for item in items:
                if isinstance(item, GenerationResult):
                    return pieces, item
                pieces.append(item)
        raise AssertionError("the stream ended without a Finish")

    return asyncio.run(scenario())


@pytest.mark.process
def test_every_token_but_the_one_that_ends_the_answer_has_a_logprob(engine: LlamaEngine) -> None:
    task = GenerationTask(chat(engine, "What is the capital of France?"), GREEDY, logprobs=True, top_logprobs=5)
    pieces, finish = pieces_of(engine, task)
    scored = [one for piece in pieces for one in piece.logprobs]
    assert finish.reason == "stop"
    assert len(scored) == len(finish.tokens) - 1
    assert b"".join(one.token_bytes for one in scored).decode() == "".join(piece.text for piece in pieces)
    for one in scored:
        assert one.top[0] == replace(one, top=()), "greedy sampling takes the likeliest"
        assert [alternative.logprob for alternative in one.top] == sorted((a.logprob for a in one.top), reverse=True)
        assert sum(math.exp(alternative.logprob) for alternative in one.top) <= 1.0001


@pytest.mark.process
def test_logprobs_do_not_depend_on_parameters_and_grammar(engine: LlamaEngine) -> None:
    task = GenerationTask(
        chat(engine, "What is the capital of France?"), GREEDY, max_tokens=1, logprobs=True, top_logprobs=3
    )
    plain = pieces_of(engine, task)[0][0].logprobs[0]
    bent = SamplingParameters(temperature=5.0, repeat_penalty=3.0, seed=1)
    changed = pieces_of(engine, replace(task, sampling=bent, grammar=Grammar('start: "zzz"')))[0][0].logprobs[0]
    assert [one.token for one in changed.top] == [one.token for one in plain.top]
    assert [one.logprob for one in changed.top] == pytest.approx([one.logprob for one in plain.top], abs=1e-3)
    assert changed.logprob < changed.top[-1].logprob


@pytest.mark.process
def test_without_logprobs_in_the_task_no_chunk_has_any(engine: LlamaEngine) -> None:
    pieces, _ = pieces_of(engine, GenerationTask(chat(engine, "Hi"), GREEDY, max_tokens=4))
    assert not any(piece.logprobs for piece in pieces)
