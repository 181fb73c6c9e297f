"""The engine with a real small model: what requests get, alone and beside each other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from corral_server.runner.engine import EngineOptions, LlamaEngine
from corral_server.runner.generation import (
    InvalidGrammar,
    InvalidPrompt,
    PromptTooLong,
    Sampling,
    Task,
)
from tests.runner.engines import GREEDY, answer, answers, ask, chat, weights, words
from tests.support.waiting import auntil

pytestmark = pytest.mark.process

CONTEXT = 256
ENDLESS = "root ::= [a-z ] root"
"""A grammar that never lets the model end by itself."""


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaEngine]:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=CONTEXT, slots=4, batch=128, threads=1))
    yield engine
    engine.close()


@pytest.fixture
def single() -> Iterator[LlamaEngine]:
    """An engine of one slot."""
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=CONTEXT, slots=1, batch=64, threads=1))
    yield engine
    engine.close()


def test_greedy_answers_are_the_same_every_time(engine: LlamaEngine) -> None:
    task = Task(chat(engine, "What is the capital of France?"), GREEDY, max_tokens=24)
    first, second = answer(engine, task), answer(engine, task)
    assert "Paris" in first.text
    assert first.text == second.text
    assert first.finish.generated == second.finish.generated


def test_an_answer_that_ends_by_itself_has_the_reason_stop(engine: LlamaEngine) -> None:
    got = answer(engine, Task(chat(engine, "What is the capital of France?"), GREEDY))
    assert got.finish.reason == "stop"
    assert "<|im_end|>" not in got.text
    assert engine.detokenize(got.finish.generated[-1:]) == engine.eos_text


def test_max_tokens_ends_with_the_reason_length(engine: LlamaEngine) -> None:
    got = answer(engine, Task(chat(engine, "Count to one hundred."), GREEDY, max_tokens=5))
    assert got.finish.reason == "length"
    assert len(got.finish.generated) == 5
    assert got.finish.prompt_tokens == len(chat(engine, "Count to one hundred."))
    assert got.finish.prompt_ns > 0
    assert got.finish.generate_ns > 0


def test_max_tokens_zero_generates_nothing(engine: LlamaEngine) -> None:
    got = answer(engine, Task(chat(engine, "Hello"), GREEDY, max_tokens=0))
    assert (got.text, got.finish.reason, got.finish.generated) == ("", "length", ())


def test_a_batch_of_four_says_what_each_says_alone(engine: LlamaEngine) -> None:
    """The first tokens only: the sums of a larger batch round differently and may flip a close choice later on."""
    questions = ("What is the capital of France?", "What is two plus two?", "Name a colour.", "Who wrote Hamlet?")
    tasks = [Task(chat(engine, question), GREEDY, max_tokens=6) for question in questions]
    alone = [answer(engine, task).text for task in tasks]
    assert [got.text for got in answers(engine, *tasks)] == alone


def test_the_likeliest_token_is_the_one_that_llama_cpps_own_sampler_picks(engine: LlamaEngine) -> None:
    task = Task(chat(engine, "Tell me a story."), GREEDY, max_tokens=24)
    neutral = replace(task, sampling=replace(GREEDY, repeat_penalty=1.0 + 1e-9))
    assert answer(engine, neutral).finish.generated == answer(engine, task).finish.generated


def test_a_seed_repeats_its_answer_and_another_seed_does_not(engine: LlamaEngine) -> None:
    prompt = chat(engine, "Tell me a story.")
    seeded = [
        answer(engine, Task(prompt, Sampling(temperature=1.5, top_k=0, top_p=1.0, seed=seed), max_tokens=16)).text
        for seed in (7, 7, 8)
    ]
    assert seeded[0] == seeded[1] != seeded[2]


def test_a_seed_gives_the_same_answer_alone_and_beside_seven_others() -> None:
    """As far as rounding lets it, see ``sampling.py``."""
    options = EngineOptions(context_length=CONTEXT, slots=8, batch=128, threads=1)
    engine = LlamaEngine.load(weights(), options)
    try:
        tasks = [
            Task(chat(engine, question), sampling, max_tokens=12)
            for question in ("What is the capital of France?", "Tell me a story.", "Name a colour.", "Who are you?")
            for sampling in (GREEDY, Sampling(temperature=0.9, seed=11))
        ]
        alone = [answer(engine, task).finish.generated for task in tasks]
        assert [got.finish.generated for got in answers(engine, *tasks)] == alone
    finally:
        engine.close()


def test_without_a_seed_answers_differ(engine: LlamaEngine) -> None:
    task = Task(chat(engine, "Tell me a story."), Sampling(temperature=2.0, top_k=0, top_p=1.0), max_tokens=16)
    assert len({answer(engine, task).text for _ in range(3)}) > 1


@pytest.mark.parametrize(
    "penalized",
    [
        replace(GREEDY, repeat_penalty=50.0),
        replace(GREEDY, presence_penalty=90.0),
        replace(GREEDY, frequency_penalty=90.0),
    ],
)
def test_a_strong_penalty_stops_repetition(engine: LlamaEngine, penalized: Sampling) -> None:
    task = Task(chat(engine, "Count from one to twenty."), GREEDY, max_tokens=40)
    plain = answer(engine, task).finish.generated
    punished = answer(engine, replace(task, sampling=penalized)).finish.generated
    assert len(set(plain)) < len(plain)
    assert len(set(punished)) == len(punished)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=float("nan"), top_p=float("nan"), min_p=float("nan"), typical_p=float("nan")),
        Sampling(temperature=float("inf"), repeat_penalty=float("inf"), frequency_penalty=float("-inf")),
        Sampling(temperature=1e-30, repeat_penalty=1e-38, presence_penalty=1e38),
        Sampling(temperature=-1, top_k=-5, top_p=0.0, min_p=2.0, typical_p=0.0, repeat_penalty=-3.0),
        Sampling(top_k=2**31 - 1, repeat_last_n=2**31 - 1, repeat_penalty=1.1, seed=-(2**63)),
        Sampling(top_k=1, typical_p=1e-9, min_p=1.0, repeat_last_n=-1, frequency_penalty=2.0, seed=2**70),
    ],
)
def test_senseless_sampling_still_generates(engine: LlamaEngine, sampling: Sampling) -> None:
    got = answer(engine, Task(chat(engine, "Hello"), sampling, max_tokens=4))
    assert 1 <= len(got.finish.generated) <= 4


def test_the_same_prompt_again_reuses_its_prefix_and_says_the_same(single: LlamaEngine) -> None:
    task = Task(chat(single, "What is the capital of France?"), GREEDY, max_tokens=8)
    first, second = answer(single, task), answer(single, task)
    assert first.finish.cached_tokens == 0
    assert second.finish.cached_tokens == len(task.prompt) - 1
    assert second.text == first.text


def test_a_conversation_reuses_what_was_said(single: LlamaEngine) -> None:
    first = answer(single, Task(chat(single, "What is the capital of France?"), GREEDY, max_tokens=8))
    before = chat(single, "What is the capital of France?") + first.finish.generated
    second = answer(single, Task((*before, *words(single, 10)), GREEDY, max_tokens=4))
    assert second.finish.cached_tokens == len(before) - 1


def test_stop_strings_end_the_text_before_them(engine: LlamaEngine) -> None:
    task = Task(chat(engine, "What is the capital of France?"), GREEDY, max_tokens=24)
    whole = answer(engine, task).text
    stop = whole[len(whole) // 3 : len(whole) // 3 + 7]
    got = answer(engine, replace(task, stop=("never said", stop)))
    assert got.text == whole[: whole.index(stop)]
    assert got.finish.reason == "stop"


def test_characters_of_several_tokens_arrive_whole(engine: LlamaEngine) -> None:
    grammar = 'root ::= "🙂🙃" "é" "漢字"'
    got = answer(engine, Task(chat(engine, "Hi"), GREEDY, grammar=grammar))
    assert got.text == "🙂🙃é漢字"
    assert all("�" not in piece for piece in got.pieces)
    assert len(got.finish.generated) > len(got.text)


def test_an_impossible_grammar_is_refused_and_the_next_request_works(engine: LlamaEngine) -> None:
    prompt = chat(engine, "Hi")
    for grammar in ("root ::= (", "root ::= root", "nothing", "", "root ::= missing", 'root ::= "a\0b"'):
        with pytest.raises(InvalidGrammar):
            answer(engine, Task(prompt, GREEDY, grammar=grammar))
    assert answer(engine, Task(prompt, GREEDY, grammar='root ::= "ok"')).text == "ok"


def test_a_grammar_that_no_token_satisfies_fails_only_its_own_request(engine: LlamaEngine) -> None:
    async def both() -> tuple[object, str]:
        bad = ask(engine, Task(chat(engine, "Hi"), GREEDY, grammar="root ::= [^\\x00-\\U0010FFFF]"))
        good = ask(engine, Task(chat(engine, "What is the capital of France?"), GREEDY, max_tokens=24))
        results = await asyncio.gather(bad, good, return_exceptions=True)
        assert not isinstance(results[1], BaseException)
        return results[0], results[1].text

    error, text = asyncio.run(both())
    assert isinstance(error, InvalidGrammar)
    assert "Paris" in text


def test_a_prompt_with_unknown_tokens_is_refused(engine: LlamaEngine) -> None:
    for prompt in ((), (-1,), (10**9,), (1, 2, 49152)):
        with pytest.raises(InvalidPrompt):
            answer(engine, Task(prompt, GREEDY, max_tokens=1))


def test_a_prompt_over_the_context_is_cut_in_the_middle(engine: LlamaEngine) -> None:
    got = answer(engine, Task(words(engine, 3 * CONTEXT), GREEDY, max_tokens=4, keep=10))
    assert got.finish.prompt_tokens == 10 + (CONTEXT - 10) // 2
    assert len(got.finish.generated) == 4


def test_a_prompt_over_the_context_is_refused_without_shift(engine: LlamaEngine) -> None:
    with pytest.raises(PromptTooLong, match="longer than the context length"):
        answer(engine, Task(words(engine, CONTEXT), GREEDY, shift=False))


def test_the_longest_prompt_that_fits_is_taken_without_shift(engine: LlamaEngine) -> None:
    got = answer(engine, Task(words(engine, CONTEXT - 1), GREEDY, shift=False, grammar=ENDLESS))
    assert got.finish.prompt_tokens == CONTEXT - 1
    assert got.finish.reason == "length"


def test_a_full_context_ends_with_length_without_shift(engine: LlamaEngine) -> None:
    prompt = words(engine, CONTEXT - 20)
    got = answer(engine, Task(prompt, GREEDY, shift=False, grammar=ENDLESS))
    assert got.finish.reason == "length"
    assert len(got.finish.generated) == 21


def test_a_full_context_is_shifted_and_goes_on(engine: LlamaEngine) -> None:
    prompt = words(engine, CONTEXT - 20)
    got = answer(engine, Task(prompt, GREEDY, max_tokens=CONTEXT, grammar=ENDLESS))
    assert got.finish.reason == "length"
    assert len(got.finish.generated) == CONTEXT


def test_without_a_limit_an_answer_ends_after_ten_contexts() -> None:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=32, slots=1, batch=32, threads=1))
    try:
        got = answer(engine, Task(words(engine, 8), GREEDY, max_tokens=-1, grammar=ENDLESS))
    finally:
        engine.close()
    assert (got.finish.reason, len(got.finish.generated)) == ("length", 320)


def test_thirty_two_tasks_on_four_slots_all_finish(engine: LlamaEngine) -> None:
    tasks = [Task(chat(engine, f"Say the number {n}."), GREEDY, max_tokens=3 + n % 5) for n in range(32)]
    got = answers(engine, *tasks)
    assert all(g.finish.prompt_tokens == len(t.prompt) for g, t in zip(got, tasks, strict=True))
    assert all(1 <= len(g.finish.generated) <= t.max_tokens for g, t in zip(got, tasks, strict=True))
    assert (engine.running, engine.waiting) == (0, 0)


def test_tasks_begin_in_the_order_they_came(single: LlamaEngine) -> None:
    order: list[int] = []

    async def one(number: int) -> None:
        await ask(single, Task(chat(single, f"Number {number}"), GREEDY, max_tokens=2))
        order.append(number)

    async def everything() -> None:
        await asyncio.gather(*(one(number) for number in range(6)))

    asyncio.run(everything())
    assert order == list(range(6))


def test_a_cancelled_generation_frees_its_slot(single: LlamaEngine) -> None:
    async def cancel_then_ask() -> str:
        async with aclosing(single.generate(Task(chat(single, "Count."), GREEDY, grammar=ENDLESS))) as items:
            await anext(items)
        await auntil(lambda: single.running == 0)
        return (await ask(single, Task(chat(single, "What is the capital of France?"), GREEDY, max_tokens=24))).text

    assert "Paris" in asyncio.run(cancel_then_ask())


def test_a_waiting_task_whose_reader_leaves_is_passed_over(single: LlamaEngine) -> None:
    async def scenario() -> int:
        running = asyncio.create_task(ask(single, Task(chat(single, "Count."), GREEDY, max_tokens=20)))
        await auntil(lambda: single.running == 1)
        waiting = asyncio.create_task(ask(single, Task(chat(single, "Hi"), GREEDY, max_tokens=100)))
        last = asyncio.create_task(ask(single, Task(chat(single, "Hello"), GREEDY, max_tokens=2)))
        await auntil(lambda: single.waiting == 2)
        waiting.cancel()
        await asyncio.gather(running, last)
        return single.running + single.waiting

    assert asyncio.run(scenario()) == 0


def test_nothing_is_kept_of_a_waiting_task_whose_reader_leaves(single: LlamaEngine) -> None:
    async def scenario() -> tuple[int, int]:
        endless = Task(chat(single, "Count."), GREEDY, grammar=ENDLESS, max_tokens=500)
        running = asyncio.create_task(ask(single, endless))
        await auntil(lambda: single.running == 1)
        leaving = [asyncio.create_task(ask(single, endless)) for _ in range(5)]
        await auntil(lambda: single.waiting == 5)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        left = (single.running, single.waiting)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return left

    assert asyncio.run(scenario()) == (1, 0)


def test_a_running_stream_flows_while_a_long_prompt_is_read(engine: LlamaEngine) -> None:
    async def scenario() -> int:
        pieces_meanwhile = 0
        stream = engine.generate(Task(chat(engine, "Count."), GREEDY, grammar=ENDLESS, max_tokens=200))
        async with aclosing(stream) as items:
            await anext(items)
            long = asyncio.create_task(ask(engine, Task(words(engine, CONTEXT - 6), GREEDY, max_tokens=1)))
            async for _ in items:
                if long.done():
                    break
                pieces_meanwhile += 1
        await long
        return pieces_meanwhile

    assert asyncio.run(scenario()) >= 1


def test_text_and_tokens_are_each_others_inverse(engine: LlamaEngine) -> None:
    for text in ("Hello, world!", "🙂 é 漢字\n\ttabs", "<|im_start|>user", "", "a" * 5000):
        tokens = engine.tokenize(text, add_special=False, parse_special=False)
        assert engine.detokenize(tokens) == text
    with pytest.raises(ValueError, match="vocabulary"):
        engine.detokenize([10**6])
