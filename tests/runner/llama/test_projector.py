"""Decoding of image embeddings, against mtmd's own way to decode them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple, get_args

import pytest

from corral_server.runner.llama.context import ContextOptions, LlamaContext
from corral_server.runner.llama.model import LlamaModel
from corral_server.runner.llama.projector import EncodableChunk, Projector, mtmd
from tests.support.projectors import Kind, require_mtmd, write_vision_pair

BEFORE, AFTER = (70, 71, 72), (73, 74)
WIDTH, HEIGHT = 96, 64
PIXELS = bytes(number * 7 % 256 for number in range(3 * WIDTH * HEIGHT))


class Loaded(NamedTuple):
    kind: Kind
    model: LlamaModel
    projector: Projector
    chunk: EncodableChunk


@pytest.fixture(params=get_args(Kind))
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Loaded]:
    """A small model of each kind with a prepared image."""
    require_mtmd()
    text, file = write_vision_pair(tmp_path, request.param)
    with ExitStack() as stack:
        model = stack.enter_context(closing(LlamaModel(text)))
        projector = stack.enter_context(closing(Projector(file, model, threads=1)))
        parts = projector.prepare(PIXELS, WIDTH, HEIGHT)
        yield Loaded(request.param, model, projector, next(part for part in parts if isinstance(part, EncodableChunk)))


def logits_after(loaded: Loaded, *, pieces: int | None) -> list[float]:
    """Return the logits after a text, the image and a text; ``pieces`` None lets mtmd decode the image."""
    with closing(LlamaContext(loaded.model, ContextOptions(length=128, sequences=1, batch_size=64))) as context:
        context.add_tokens(0, 0, BEFORE, outputs=0)
        assert context.decode() == 0
        embeddings = loaded.projector.encode(loaded.chunk)
        if pieces is None:
            decode_by_mtmd(loaded, context, embeddings)
        else:
            decode_in_pieces(loaded, context, embeddings, size=-(-loaded.chunk.rows // pieces))
        context.clear_batch()
        last = context.add_tokens(0, len(BEFORE) + loaded.chunk.positions, AFTER, outputs=1)
        assert context.decode() == 0
        return list(context.logits(last).cast("B").cast("f"))


def decode_by_mtmd(loaded: Loaded, context: LlamaContext, embeddings: object) -> None:
    end = ctypes.c_int32()
    status = mtmd().mtmd_helper_decode_image_chunk(
        loaded.projector._context,
        context._context,
        loaded.chunk.handle,
        embeddings,
        len(BEFORE),
        0,
        64,
        ctypes.byref(end),
        mtmd().mtmd_helper_post_decode_callback(),
        None,
    )
    assert (status, end.value) == (0, len(BEFORE) + loaded.chunk.positions)


def decode_in_pieces(loaded: Loaded, context: LlamaContext, embeddings: object, *, size: int) -> None:
    start = len(BEFORE)
    for first in range(0, loaded.chunk.rows, size):
        count = min(size, loaded.chunk.rows - first)
        if loaded.projector.uses_mrope:
            sections = [section[first : first + count] for section in loaded.chunk.grid(start)]
        else:
            sections = [tuple(range(start + first, start + first + count))]
        status = context.decode_embeddings(
            0,
            sections,
            embeddings,
            first=first,
            size=loaded.projector.embedding_size,
            causal=not loaded.projector.attends_both_ways,
        )
        assert status == 0


def test_an_image_is_decoded_as_mtmd_decodes_it(loaded: Loaded) -> None:
    assert logits_after(loaded, pieces=1) == pytest.approx(logits_after(loaded, pieces=None), abs=1e-5)


@pytest.mark.parametrize("loaded", ["mlp", "qwen2vl_merger"], indirect=True)
def test_an_image_that_is_read_in_order_can_be_decoded_in_pieces(loaded: Loaded) -> None:
    assert logits_after(loaded, pieces=3) == pytest.approx(logits_after(loaded, pieces=1), abs=1e-3)


def test_the_kind_of_attention_and_positions_is_that_of_the_model(loaded: Loaded) -> None:
    assert loaded.projector.attends_both_ways == (loaded.kind == "gemma3")
    assert loaded.projector.uses_mrope == (loaded.kind == "qwen2vl_merger")
    assert (loaded.chunk.positions < loaded.chunk.rows) == loaded.projector.uses_mrope


def test_the_pixels_of_an_image_change_its_embeddings(loaded: Loaded) -> None:
    other = loaded.projector.prepare(bytes(len(PIXELS)), WIDTH, HEIGHT)
    chunk = next(part for part in other if isinstance(part, EncodableChunk))
    assert list(loaded.projector.encode(chunk)) != list(loaded.projector.encode(loaded.chunk))
