"""Texts far longer than the context: the same prompt as from all of their tokens, from a small part of the work."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from corral_server.runner.api.embeddings.inputs import InputLimit, tokenize_input
from corral_server.runner.chat.chat_request import ChatRequest, chat_task
from corral_server.runner.chat.completion_request import CompletionRequest, completion_task
from corral_server.runner.chat.generation_request import GenerationRequest
from corral_server.runner.chat.loaded_model import LoadedModel
from corral_server.runner.chat.long_text import tokenize_ends
from corral_server.runner.chat.options import GenerationOptions
from corral_server.runner.engine.cache.context_shift import TOO_LONG, tokens_to_keep, truncate_prompt
from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.embedding import EmbeddingOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.llama.errors import PromptTooLong
from corral_server.runner.templates.templates import ChatTemplate
from corral_server.wire.errors import ApiError
from tests.runner.engines import weights
from tests.support import minilm
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import TEMPLATE, runner_state

MIB = 1 << 20
CONTEXT = 256
WORDS = (
    "the ",
    "quick ",
    "photosynthesis ",
    "\n\n",
    "    ",
    "x = y[0]\n",
    "être ",
    "日本語のテキスト。",
    "🦙",
    "1234567 ",
    "<|im_end|>",
)
TEXTS = {
    "english": "It was a bright cold day in April, and the clocks were striking thirteen. " * 900,
    "mixed": "".join(random.Random(7).choices(WORDS, k=20_000)),
    "white space": " \n\t" * 30_000,
    "special tokens": "<|im_start|>user\nHi<|im_end|>\n" * 3_000,
    "no spaces": "日本語のテキスト、" * 8_000,
}


@dataclass
class CountingEngine(FakeEngine):
    """Records how many characters were tokenized at most."""

    most: int = field(default=0)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        self.most = max(self.most, len(text))
        return super().tokenize(text, add_special=add_special, parse_special=parse_special)


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaEngine]:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=CONTEXT, slots=1, batch_size=64, threads=1))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaEngine]:
    path = minilm.write_gguf(tmp_path_factory.mktemp("minilm") / "minilm.gguf")
    engine = LlamaEngine.load(path, EngineOptions(threads=1, embedding=EmbeddingOptions(embedding_only=True)))
    yield engine
    engine.close()


def loaded(engine: FakeEngine) -> LoadedModel:
    state = runner_state(engine)
    assert state.loaded is not None
    return state.loaded


def complete(engine: FakeEngine, prompt: str, **fields: object) -> GenerationTask:
    request = GenerationRequest("tiny", stream=False, **fields)  # type: ignore[arg-type]  # truncate and shift
    return completion_task(loaded(engine), CompletionRequest(request, prompt, raw=True), GenerationOptions())


@pytest.mark.process
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncation_gives_the_prompt_of_the_whole_text(engine: LlamaEngine, text: str, keep: int) -> None:
    whole = engine.tokenize(text, add_special=True, parse_special=True)
    ends = tokenize_ends(engine, text, add_special=True)
    assert len(ends) == 2 * CONTEXT < len(whole)
    first = tokens_to_keep(keep, len(whole), context=CONTEXT)
    assert truncate_prompt(ends, first, context=CONTEXT) == truncate_prompt(whole, first, context=CONTEXT)


@pytest.mark.process
def test_a_text_of_long_tokens_counts_as_longer_than_the_context_only_if_it_is(engine: LlamaEngine) -> None:
    """White space has tokens of many characters, so the first estimate of a token's length is far too small."""
    for text in (" " * 40_000, "\n" * 9_000, " " * 400_000):
        whole = engine.tokenize(text, add_special=True, parse_special=True)
        ends = tokenize_ends(engine, text, add_special=True)
        assert (len(ends) >= CONTEXT) == (len(whole) >= CONTEXT)
        assert len(ends) == len(whole) or ends[:CONTEXT] == whole[:CONTEXT]


@pytest.mark.process
@pytest.mark.parametrize("text", [*TEXTS.values(), "x" * 300_000, " " * 300_000], ids=[*TEXTS, "one word", "spaces"])
def test_an_input_to_embed_keeps_the_beginning_of_the_whole_text(encoder: LlamaEngine, text: str) -> None:
    limit = InputLimit(64)
    whole = encoder.tokenize(text, add_special=True, parse_special=True)
    expected = whole if len(whole) <= 64 else [*whole[:63], whole[-1]]
    assert tokenize_input(encoder, text, limit) == expected


def test_a_raw_prompt_of_30_mib_is_not_tokenized_as_a_whole() -> None:
    engine = CountingEngine()
    task = complete(engine, "start" + "x" * 30 * MIB + "end")
    assert engine.most < 100_000
    assert engine.detokenize(task.prompt).startswith("startx")
    assert engine.detokenize(task.prompt).endswith("xend")
    assert len(task.prompt) == 2 * engine.context_length


def test_a_message_of_10_mib_is_not_tokenized_as_a_whole() -> None:
    engine = CountingEngine()
    messages = [{"role": "user", "content": "x" * 10 * MIB}]
    model = LoadedModel(engine, loaded(engine).metadata, ChatTemplate(TEMPLATE), GenerationOptions())
    chat_task(model, ChatRequest(GenerationRequest("tiny", stream=False), messages), GenerationOptions())
    assert engine.most < 100_000


def test_a_prompt_of_30_mib_is_too_long_where_it_may_not_be_cut() -> None:
    engine = CountingEngine()
    with pytest.raises(PromptTooLong, match=TOO_LONG):
        complete(engine, "x" * 30 * MIB, truncate=False)
    assert engine.most < 100_000


def test_an_input_of_30_mib_is_not_tokenized_as_a_whole() -> None:
    engine = CountingEngine()
    assert len(tokenize_input(engine, "x" * 30 * MIB, InputLimit(512))) == 512
    with pytest.raises(ApiError, match="the input length exceeds the context length"):
        tokenize_input(engine, "x" * 30 * MIB, InputLimit(512, truncate=False))
    assert engine.most < 100_000


def test_the_context_of_an_earlier_response_is_cut_to_what_truncation_can_keep() -> None:
    engine = FakeEngine(context_length=8)
    completion = CompletionRequest(
        GenerationRequest("tiny", stream=False), "c", context=tuple(range(100)), template="{{ messages[0].content }}"
    )
    task = completion_task(loaded(engine), completion, GenerationOptions())
    assert task.prompt == (*range(8), *range(92, 100), ord("c"))
