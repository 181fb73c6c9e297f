"""The engine with the small real model: answers of lone tasks and of tasks in one batch."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.llama.errors import InvalidGrammar, InvalidPrompt, PromptTooLong
from corral_server.runner.sampling.grammar import Grammar
from corral_server.runner.sampling.parameters import SamplingParameters
from tests.runner.engines import CONTEXT, ENDLESS, GREEDY, Answer, answer, answers, ask, chat, weights, words
from tests.support.waiting import auntil

pytestmark = pytest.mark.process


def test_greedy_answers_are_the_same_every_time(engine: LlamaEngine) -> None:
    task = GenerationTask(chat(engine, "What is the capital of France?"), GREEDY, max_tokens=24)
    first, second = answer(engine, task), answer(engine, task)
    assert "Paris" in first.text
    assert first.text == second.text
    assert first.result.tokens == second.result.tokens


def test_an_answer_that_the_model_ends_has_the_reason_stop(engine: LlamaEngine) -> None:
    got = answer(engine, GenerationTask(chat(engine, "What is the capital of France?"), GREEDY))
    assert got.result.reason == "stop"
    assert "<|im_end|>" not in got.text
    assert engine.detokenize(got.result.tokens[-1:]) == engine.eos_text


def test_max_tokens_ends_with_the_reason_length(engine: LlamaEngine) -> None:
    got = answer(engine, GenerationTask(chat(engine, "Count to one hundred."), GREEDY, max_tokens=5))
    assert got.result.reason == "length"
    assert len(got.result.tokens) == 5
    assert got.result.prompt_tokens == len(chat(engine, "Count to one hundred."))
    assert got.result.prefill_ns > 0
    assert got.result.decode_ns > 0


def test_max_tokens_zero_generates_nothing(engine: LlamaEngine) -> None:
    got = answer(engine, GenerationTask(chat(engine, "Hello"), GREEDY, max_tokens=0))
    assert (got.text, got.result.reason, got.result.tokens) == ("", "length", ())


def test_four_tasks_in_a_batch_have_the_answers_of_lone_tasks(engine: LlamaEngine) -> None:
    """The first tokens only: the sums of a larger batch round differently and may flip a close choice later on."""
    questions = ("What is the capital of France?", "What is two plus two?", "Name a colour.", "Who wrote Hamlet?")
    tasks = [GenerationTask(chat(engine, question), GREEDY, max_tokens=6) for question in questions]
    alone = [answer(engine, task).text for task in tasks]
    assert [got.text for got in answers(engine, *tasks)] == alone


def test_the_greedy_sampler_chooses_the_tokens_of_llama_cpps_own(engine: LlamaEngine) -> None:
    task = GenerationTask(chat(engine, "Tell me a story."), GREEDY, max_tokens=24)
    neutral = replace(task, sampling=replace(GREEDY, repeat_penalty=1.0 + 1e-9))
    assert answer(engine, neutral).result.tokens == answer(engine, task).result.tokens


def test_a_seed_determines_the_answer(engine: LlamaEngine) -> None:
    prompt = chat(engine, "Tell me a story.")
    seeded = [
        answer(
            engine,
            GenerationTask(prompt, SamplingParameters(temperature=1.5, top_k=0, top_p=1.0, seed=seed), max_tokens=16),
        ).text
        for seed in (7, 7, 8)
    ]
    assert seeded[0] == seeded[1] != seeded[2]


def test_a_seed_gives_the_same_answer_alone_and_in_a_batch_of_eight() -> None:
    """Within the limits of rounding, see ``sampling/sampler.py``."""
    options = EngineOptions(context_length=CONTEXT, slots=8, batch_size=128, threads=1)
    engine = LlamaEngine.load(weights(), options)
    try:
        tasks = [
            GenerationTask(chat(engine, question), sampling, max_tokens=12)
            for question in ("What is the capital of France?", "Tell me a story.", "Name a colour.", "Who are you?")
            for sampling in (GREEDY, SamplingParameters(temperature=0.9, seed=11))
        ]
        alone = [answer(engine, task).result.tokens for task in tasks]
        assert [got.result.tokens for got in answers(engine, *tasks)] == alone
    finally:
        engine.close()


def test_without_a_seed_answers_differ(engine: LlamaEngine) -> None:
    task = GenerationTask(
        chat(engine, "Tell me a story."), SamplingParameters(temperature=2.0, top_k=0, top_p=1.0), max_tokens=16
    )
    assert len({answer(engine, task).text for _ in range(3)}) > 1


@pytest.mark.parametrize(
    "penalized",
    [
        replace(GREEDY, repeat_penalty=50.0),
        replace(GREEDY, presence_penalty=90.0),
        replace(GREEDY, frequency_penalty=90.0),
    ],
)
def test_a_strong_penalty_stops_repetition(engine: LlamaEngine, penalized: SamplingParameters) -> None:
    task = GenerationTask(chat(engine, "Count from one to twenty."), GREEDY, max_tokens=40)
    plain = answer(engine, task).result.tokens
    punished = answer(engine, replace(task, sampling=penalized)).result.tokens
    assert len(set(plain)) < len(plain)
    assert len(set(punished)) == len(punished)


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParameters(temperature=float("nan"), top_p=float("nan"), min_p=float("nan"), typical_p=float("nan")),
        SamplingParameters(temperature=float("inf"), repeat_penalty=float("inf"), frequency_penalty=float("-inf")),
        SamplingParameters(temperature=1e-30, repeat_penalty=1e-38, presence_penalty=1e38),
        SamplingParameters(temperature=-1, top_k=-5, top_p=0.0, min_p=2.0, typical_p=0.0, repeat_penalty=-3.0),
        SamplingParameters(top_k=2**31 - 1, repeat_last_n=2**31 - 1, repeat_penalty=1.1, seed=-(2**63)),
        SamplingParameters(top_k=1, typical_p=1e-9, min_p=1.0, repeat_last_n=-1, frequency_penalty=2.0, seed=2**70),
    ],
)
def test_invalid_sampling_parameters_still_generate(engine: LlamaEngine, sampling: SamplingParameters) -> None:
    got = answer(engine, GenerationTask(chat(engine, "Hello"), sampling, max_tokens=4))
    assert 1 <= len(got.result.tokens) <= 4


def test_a_repeated_prompt_reuses_its_prefix_and_has_the_same_answer(one_slot_engine: LlamaEngine) -> None:
    task = GenerationTask(chat(one_slot_engine, "What is the capital of France?"), GREEDY, max_tokens=8)
    first, second = answer(one_slot_engine, task), answer(one_slot_engine, task)
    assert first.result.cached_tokens == 0
    assert second.result.cached_tokens == len(task.prompt) - 1
    assert second.text == first.text


def test_a_conversation_reuses_its_earlier_turns(one_slot_engine: LlamaEngine) -> None:
    first = answer(
        one_slot_engine, GenerationTask(chat(one_slot_engine, "What is the capital of France?"), GREEDY, max_tokens=8)
    )
    before = chat(one_slot_engine, "What is the capital of France?") + first.result.tokens
    second = answer(one_slot_engine, GenerationTask((*before, *words(one_slot_engine, 10)), GREEDY, max_tokens=4))
    assert second.result.cached_tokens == len(before) - 1


def test_stop_strings_end_the_text_before_them(engine: LlamaEngine) -> None:
    task = GenerationTask(chat(engine, "What is the capital of France?"), GREEDY, max_tokens=24)
    whole = answer(engine, task).text
    stop = whole[len(whole) // 3 : len(whole) // 3 + 7]
    got = answer(engine, replace(task, stop=("never said", stop)))
    assert got.text == whole[: whole.index(stop)]
    assert got.result.reason == "stop"


def test_characters_of_several_tokens_arrive_whole(engine: LlamaEngine) -> None:
    grammar = Grammar('start: "🙂🙃" "é" "漢字"')
    got = answer(engine, GenerationTask(chat(engine, "Hi"), GREEDY, grammar=grammar))
    assert got.text == "🙂🙃é漢字"
    assert all("�" not in chunk for chunk in got.chunks)
    assert len(got.result.tokens) > len(got.text)


def test_an_impossible_grammar_is_refused_and_the_next_request_works(engine: LlamaEngine) -> None:
    prompt = chat(engine, "Hi")
    for grammar in ("start: (", "nothing", "", "start: missing", 'start: "a', 'start: %json {"not": {}}'):
        with pytest.raises(InvalidGrammar):
            answer(engine, GenerationTask(prompt, GREEDY, grammar=Grammar(grammar)))
    assert answer(engine, GenerationTask(prompt, GREEDY, grammar=Grammar('start: "ok"'))).text == "ok"


async def test_a_grammar_that_allows_no_token_fails_only_its_own_request(engine: LlamaEngine) -> None:
    bad = ask(engine, GenerationTask(chat(engine, "Hi"), GREEDY, grammar=Grammar('start: "\\u0004"')))
    good = ask(engine, GenerationTask(chat(engine, "What is the capital of France?"), GREEDY, max_tokens=24))
    error, got = await asyncio.gather(bad, good, return_exceptions=True)
    assert isinstance(error, InvalidGrammar)
    assert isinstance(got, Answer)
    assert "Paris" in got.text


def test_a_prompt_with_unknown_tokens_is_refused(engine: LlamaEngine) -> None:
    for prompt in ((), (-1,), (10**9,), (1, 2, 49152)):
        with pytest.raises(InvalidPrompt):
            answer(engine, GenerationTask(prompt, GREEDY, max_tokens=1))


def test_a_prompt_over_the_context_is_truncated_in_the_middle(engine: LlamaEngine) -> None:
    got = answer(engine, GenerationTask(words(engine, 3 * CONTEXT), GREEDY, max_tokens=4, keep=10))
    assert got.result.prompt_tokens == 10 + (CONTEXT - 10) // 2
    assert len(got.result.tokens) == 4


def test_a_prompt_over_the_context_is_refused_without_shift(engine: LlamaEngine) -> None:
    with pytest.raises(PromptTooLong, match="longer than the context length"):
        answer(engine, GenerationTask(words(engine, CONTEXT), GREEDY, context_shift=False))


def test_the_longest_prompt_that_fits_is_taken_without_shift(engine: LlamaEngine) -> None:
    got = answer(engine, GenerationTask(words(engine, CONTEXT - 1), GREEDY, context_shift=False, grammar=ENDLESS))
    assert got.result.prompt_tokens == CONTEXT - 1
    assert got.result.reason == "length"


def test_a_full_context_ends_with_length_without_shift(engine: LlamaEngine) -> None:
    prompt = words(engine, CONTEXT - 20)
    got = answer(engine, GenerationTask(prompt, GREEDY, context_shift=False, grammar=ENDLESS))
    assert got.result.reason == "length"
    assert len(got.result.tokens) == 21


def test_a_full_context_is_shifted_and_the_generation_continues(engine: LlamaEngine) -> None:
    prompt = words(engine, CONTEXT - 20)
    got = answer(engine, GenerationTask(prompt, GREEDY, max_tokens=CONTEXT, grammar=ENDLESS))
    assert got.result.reason == "length"
    assert len(got.result.tokens) == CONTEXT


def test_without_a_limit_an_answer_ends_after_ten_contexts() -> None:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=32, slots=1, batch_size=32, threads=1))
    try:
        got = answer(engine, GenerationTask(words(engine, 8), GREEDY, max_tokens=-1, grammar=ENDLESS))
    finally:
        engine.close()
    assert (got.result.reason, len(got.result.tokens)) == ("length", 320)


def test_a_task_with_a_shorter_context_is_truncated_to_it(engine: LlamaEngine) -> None:
    task = GenerationTask(words(engine, CONTEXT // 2), GREEDY, max_tokens=4, keep=10, context_length=32)
    assert answer(engine, task).result.prompt_tokens == 10 + (32 - 10) // 2


def test_a_task_with_a_shorter_context_is_shifted_in_it(one_slot_engine: LlamaEngine) -> None:
    prompt = words(one_slot_engine, 24)
    task = GenerationTask(prompt, GREEDY, max_tokens=CONTEXT, grammar=ENDLESS, context_length=32)
    assert len(answer(one_slot_engine, task).result.tokens) == CONTEXT
    assert one_slot_engine.kv_cells_used <= 32


def test_a_task_with_a_shorter_context_ends_in_it_without_shift(engine: LlamaEngine) -> None:
    prompt = words(engine, 24)
    task = GenerationTask(prompt, GREEDY, context_shift=False, grammar=ENDLESS, context_length=32)
    assert len(answer(engine, task).result.tokens) == 32 - len(prompt) + 1


def test_without_a_limit_an_answer_ends_after_ten_contexts_of_its_task(engine: LlamaEngine) -> None:
    task = GenerationTask(words(engine, 4), GREEDY, grammar=ENDLESS, context_length=8)
    assert len(answer(engine, task).result.tokens) == 80


def test_thirty_two_tasks_on_four_slots_all_finish(engine: LlamaEngine) -> None:
    tasks = [GenerationTask(chat(engine, f"Say the number {n}."), GREEDY, max_tokens=3 + n % 5) for n in range(32)]
    got = answers(engine, *tasks)
    assert all(g.result.prompt_tokens == len(t.prompt) for g, t in zip(got, tasks, strict=True))
    assert all(1 <= len(g.result.tokens) <= t.max_tokens for g, t in zip(got, tasks, strict=True))
    assert (engine.running, engine.waiting) == (0, 0)


async def test_tasks_start_in_the_order_of_their_arrival(one_slot_engine: LlamaEngine) -> None:
    order: list[int] = []

    async def run(number: int) -> None:
        await ask(one_slot_engine, GenerationTask(chat(one_slot_engine, f"Number {number}"), GREEDY, max_tokens=2))
        order.append(number)

    await asyncio.gather(*(run(number) for number in range(6)))
    assert order == list(range(6))


async def test_a_cancelled_generation_frees_its_slot(one_slot_engine: LlamaEngine) -> None:
    endless = GenerationTask(chat(one_slot_engine, "Count."), GREEDY, grammar=ENDLESS)
    async with aclosing(one_slot_engine.generate(endless)) as items:
        await anext(items)
    await auntil(lambda: one_slot_engine.running == 0)
    task = GenerationTask(chat(one_slot_engine, "What is the capital of France?"), GREEDY, max_tokens=24)
    assert "Paris" in (await ask(one_slot_engine, task)).text


async def test_a_cancelled_task_in_the_queue_is_skipped(one_slot_engine: LlamaEngine) -> None:
    def start(text: str, max_tokens: int) -> asyncio.Task[Answer]:
        task = GenerationTask(chat(one_slot_engine, text), GREEDY, max_tokens=max_tokens)
        return asyncio.create_task(ask(one_slot_engine, task))

    running = start("Count.", 20)
    await auntil(lambda: one_slot_engine.running == 1)
    waiting, last = start("Hi", 100), start("Hello", 2)
    await auntil(lambda: one_slot_engine.waiting == 2)
    waiting.cancel()
    await asyncio.gather(running, last)
    assert (one_slot_engine.running, one_slot_engine.waiting) == (0, 0)


async def test_cancelled_tasks_leave_the_queue_at_once(one_slot_engine: LlamaEngine) -> None:
    endless = GenerationTask(chat(one_slot_engine, "Count."), GREEDY, grammar=ENDLESS, max_tokens=500)
    running = asyncio.create_task(ask(one_slot_engine, endless))
    await auntil(lambda: one_slot_engine.running == 1)
    cancelled = [asyncio.create_task(ask(one_slot_engine, endless)) for _ in range(5)]
    await auntil(lambda: one_slot_engine.waiting == 5)
    for task in cancelled:
        task.cancel()
    await asyncio.gather(*cancelled, return_exceptions=True)
    assert (one_slot_engine.running, one_slot_engine.waiting) == (1, 0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_running_stream_continues_during_the_prefill_of_a_long_prompt(engine: LlamaEngine) -> None:
    chunks = 0
    endless = GenerationTask(chat(engine, "Count."), GREEDY, grammar=ENDLESS, max_tokens=200)
    async with aclosing(engine.generate(endless)) as items:
        await anext(items)
        task = GenerationTask(words(engine, CONTEXT - 6), GREEDY, max_tokens=1)
        prefill = asyncio.create_task(ask(engine, task))
        async for _ in items:
            if prefill.done():
                break
            chunks += 1
    await prefill
    assert chunks >= 1


def test_detokenizing_inverts_tokenizing(engine: LlamaEngine) -> None:
    for text in ("Hello, world!", "🙂 é 漢字\n\ttabs", "<|im_start|>user", "", "a" * 5000):
        tokens = engine.tokenize(text, add_special=False, parse_special=False)
        assert engine.detokenize(tokens) == text
    with pytest.raises(ValueError, match="vocabulary"):
        engine.detokenize([10**6])
