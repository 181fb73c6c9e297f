"""Images in prompts: the small real model with a projector of random weights."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationResult, GenerationTask
from corral_server.runner.engine.prepared_image import PreparedImage
from corral_server.runner.llama.errors import EngineFailed, InvalidPrompt, LoadFailed, PromptTooLong
from corral_server.runner.llama.projector import Embeddings, EncodableChunk, Projector
from tests.runner.engines import CONTEXT, ENDLESS, GREEDY, Answer, answer, answers, ask, chat, weights
from tests.support.pictures import png
from tests.support.projectors import ROWS, require_mtmd, write_projector
from tests.support.waiting import auntil


@pytest.fixture(scope="module")
def projector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_mtmd()
    return write_projector(tmp_path_factory.mktemp("projector") / "mmproj.gguf")


@pytest.fixture(scope="module")
def engine(projector: Path) -> Iterator[LlamaEngine]:
    options = EngineOptions(context_length=CONTEXT, slots=3, batch_size=128, threads=1, projector=projector)
    engine = LlamaEngine.load(weights(), options)
    yield engine
    engine.close()


def prepare(engine: LlamaEngine, shade: int) -> PreparedImage:
    data = png(80, 60, shade=shade)
    return engine.prepare_image(data, hashlib.sha256(data).hexdigest())


def question(engine: LlamaEngine, *images: PreparedImage, text: str = "What is it?") -> tuple[int, ...]:
    before, after = (
        engine.tokenize(part, add_special=False, parse_special=True)
        for part in ("<|im_start|>user\n", f"{text}<|im_end|>\n<|im_start|>assistant\n")
    )
    return (*before, *(cell for image in images for cell in image.cells), *after)


def ask_about(engine: LlamaEngine, *images: PreparedImage, text: str = "What is it?") -> Answer:
    return answer(engine, image_task(engine, *images, text=text))


def image_task(engine: LlamaEngine, *images: PreparedImage, text: str = "What is it?") -> GenerationTask:
    return GenerationTask(question(engine, *images, text=text), sampling=GREEDY, max_tokens=8, images=images)


def block_encoding(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let every encoding wait for the returned event."""
    event, encode = threading.Event(), Projector.encode

    def encode_later(projector: Projector, chunk: EncodableChunk) -> Embeddings:
        assert event.wait(60), "the test does not let the image be encoded"
        return encode(projector, chunk)

    monkeypatch.setattr(Projector, "encode", encode_later)
    return event


def test_the_tokens_of_an_image_count_as_tokens_of_the_prompt(engine: LlamaEngine) -> None:
    image = prepare(engine, 10)
    result = ask_about(engine, image).result
    assert len(image.cells) == ROWS
    assert result.prompt_tokens == len(question(engine)) + ROWS


def test_a_second_request_with_the_image_reuses_its_cells_and_has_the_same_answer(engine: LlamaEngine) -> None:
    image = prepare(engine, 20)
    first, second = ask_about(engine, image), ask_about(engine, image)
    assert first.text == second.text
    assert second.result.cached_tokens == second.result.prompt_tokens - 1


def test_an_image_is_encoded_once_for_all_requests(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[EncodableChunk] = []
    encode = Projector.encode

    def recorded(projector: Projector, chunk: EncodableChunk) -> Embeddings:
        encoded.append(chunk)
        return encode(projector, chunk)

    monkeypatch.setattr(Projector, "encode", recorded)
    for text in ("Describe the image.", "Which colour has it?"):
        ask_about(engine, prepare(engine, 30), text=text)
    assert len(encoded) == 1


def test_another_image_does_not_reuse_the_cells_of_the_first(engine: LlamaEngine) -> None:
    ask_about(engine, prepare(engine, 40))
    result = ask_about(engine, prepare(engine, 220)).result
    assert result.cached_tokens < ROWS


def test_several_images_have_the_order_of_the_prompt(engine: LlamaEngine) -> None:
    dark, light = prepare(engine, 0), prepare(engine, 255)
    one, other = ask_about(engine, dark, light), ask_about(engine, light, dark)
    assert one.result.prompt_tokens == other.result.prompt_tokens == len(question(engine)) + 2 * ROWS
    assert other.result.cached_tokens < ROWS


def test_an_image_that_is_decoded_in_pieces_gives_the_same_answer(engine: LlamaEngine, projector: Path) -> None:
    whole = ask_about(engine, prepare(engine, 50))
    options = EngineOptions(context_length=CONTEXT, slots=1, batch_size=5, threads=1, projector=projector)
    small = LlamaEngine.load(weights(), options)
    try:
        assert ask_about(small, prepare(small, 50)).text == whole.text
    finally:
        small.close()


async def test_a_stream_of_text_continues_while_an_image_is_encoded(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding = block_encoding(monkeypatch)
    image = prepare(engine, 60)
    seeing = asyncio.create_task(ask(engine, image_task(engine, image)))
    await auntil(lambda: engine.running == 1)
    text = await ask(engine, GenerationTask(chat(engine, "Hello"), grammar=ENDLESS, max_tokens=20))
    assert len(text.result.tokens) == 20
    assert not seeing.done()
    encoding.set()
    assert len((await seeing).result.tokens) > 0


async def test_a_request_that_leaves_while_its_image_is_encoded_frees_its_slot(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding = block_encoding(monkeypatch)
    task = image_task(engine, prepare(engine, 70))
    async with aclosing(engine.generate(task)) as items:
        pending = asyncio.ensure_future(anext(items))
        await auntil(lambda: engine.running == 1)
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)
    await auntil(lambda: engine.running == 0)
    encoding.set()
    assert isinstance((await ask(engine, task)).result, GenerationResult)


async def test_an_image_that_cannot_be_encoded_fails_its_request_alone(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_projector: Projector, _chunk: EncodableChunk) -> Embeddings:
        raise EngineFailed("the image could not be encoded")

    monkeypatch.setattr(Projector, "encode", broken)
    text = asyncio.create_task(ask(engine, GenerationTask(chat(engine, "Hello"), max_tokens=5)))
    with pytest.raises(EngineFailed, match="could not be encoded"):
        await ask(engine, image_task(engine, prepare(engine, 80)))
    assert (await text).result.tokens


def test_requests_with_and_without_images_run_at_once(engine: LlamaEngine) -> None:
    image = prepare(engine, 90)
    plain = GenerationTask(chat(engine, "Name a colour."), sampling=GREEDY, max_tokens=8)
    alone = [answer(engine, task).text for task in (plain, image_task(engine, image))]
    together = answers(engine, plain, image_task(engine, image), plain)
    assert [one.text for one in together] == [*alone, alone[0]]


def test_a_damaged_image_is_an_error_of_the_client_and_the_engine_goes_on(engine: LlamaEngine) -> None:
    whole = png(80, 60, shade=33)
    for data in (whole[: len(whole) // 2], b"no image", b"RIFF\0\0\0\0WAVEfmt "):
        with pytest.raises(InvalidPrompt, match="is damaged, or of a format"):
            engine.prepare_image(data, hashlib.sha256(data).hexdigest())
    assert ask_about(engine, prepare(engine, 33)).result.tokens


def test_an_image_of_one_row_of_pixels_is_refused(engine: LlamaEngine) -> None:
    data = png(500, 1)
    with pytest.raises(InvalidPrompt, match="sides of 500 and 1 pixels"):
        engine.prepare_image(data, hashlib.sha256(data).hexdigest())


def test_a_full_context_with_an_image_ends_the_answer(engine: LlamaEngine) -> None:
    image = prepare(engine, 100)
    prompt = question(engine, image, text="long " * (CONTEXT - 50))
    result = answer(engine, GenerationTask(prompt, grammar=ENDLESS, images=(image,))).result
    assert result.reason == "length"
    assert result.prompt_tokens + len(result.tokens) == CONTEXT + 1  # the last token has no cell


def test_a_prompt_with_images_that_exceeds_the_context_is_refused(engine: LlamaEngine) -> None:
    with pytest.raises(PromptTooLong):
        ask_about(engine, prepare(engine, 110), text="long " * CONTEXT)


@pytest.mark.parametrize("cut", [slice(None, -1), slice(1, None)])
def test_a_part_of_an_images_cells_is_refused(engine: LlamaEngine, cut: slice) -> None:
    image = prepare(engine, 120)
    with pytest.raises(InvalidPrompt, match="not in the model's vocabulary"):
        answer(engine, GenerationTask((*image.cells[cut], 1), images=(image,)))


def test_a_prompt_that_ends_with_an_image_is_refused(engine: LlamaEngine) -> None:
    image = prepare(engine, 130)
    with pytest.raises(InvalidPrompt, match="ends with an image"):
        answer(engine, GenerationTask((1, *image.cells), images=(image,)))


def test_an_engine_without_a_projector_refuses_images() -> None:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=CONTEXT, slots=1, threads=1))
    try:
        assert not engine.accepts_images
        with pytest.raises(InvalidPrompt, match="no projector"):
            prepare(engine, 1)
    finally:
        engine.close()


def test_a_projector_of_another_width_than_the_models_is_refused(tmp_path: Path) -> None:
    require_mtmd()
    path = write_projector(tmp_path / "mmproj.gguf", output=64)
    with pytest.raises(LoadFailed, match=r"mmproj\.gguf cannot be loaded as the projector"):
        LlamaEngine.load(weights(), EngineOptions(context_length=CONTEXT, slots=1, threads=1, projector=path))


def test_the_projector_counts_in_the_size_of_the_model(engine: LlamaEngine, projector: Path) -> None:
    assert engine._parts.projector is not None
    assert sum(engine._parts.projector.buffer_sizes.values()) > projector.stat().st_size
