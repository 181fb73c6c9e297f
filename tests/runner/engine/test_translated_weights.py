"""Ollama's formats: llama.cpp refuses the file, and answers from the translated one as from its own format."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from corral_core.weights.gguf import read_header
from corral_core.weights.gguf_metadata import read_metadata
from corral_core.weights.ollama.translations import translate
from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.embedding import EmbeddingOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.llama.errors import LoadFailed
from tests.runner.engines import GREEDY, answer
from tests.support.ollama_models import PAIRS

pytestmark = pytest.mark.process

TEXT = "The quick brown fox jumps over the lazy dog, twice."


def _translated(path: Path) -> Path:
    edits = translate(read_header(path))
    assert edits is not None
    target, digest = path.with_name("translated.gguf"), hashlib.sha256()
    with path.open("rb") as source, target.open("wb") as file:
        size = edits.write(source, file, wrote=digest.update)
    assert size == target.stat().st_size <= edits.size
    assert digest.hexdigest() == hashlib.sha256(target.read_bytes()).hexdigest()
    return target


def _load(path: Path, *, embeds: bool) -> LlamaEngine:
    embedding = EmbeddingOptions(embedding_only=True) if embeds else None
    return LlamaEngine.load(path, EngineOptions(context_length=256, slots=1, threads=1, embedding=embedding))


def _output(path: Path, *, embeds: bool) -> list[float]:
    """Return the tokens of an answer, or the vector of a text."""
    engine = _load(path, embeds=embeds)
    try:
        prompt = engine.tokenize(TEXT, add_special=True, parse_special=True)
        if embeds:
            (vector,) = asyncio.run(engine.embed([prompt]))
            return list(vector)
        return list(answer(engine, GenerationTask(tuple(prompt), GREEDY, max_tokens=16)).result.tokens)
    finally:
        engine.close()


@pytest.mark.parametrize("name", PAIRS)
def test_translated_weights_answer_like_those_for_llama_cpp(name: str, tmp_path: Path) -> None:
    native, ollama = PAIRS[name]().write(tmp_path)
    embeds = name in ("bert", "embedding_gemma")
    with pytest.raises(LoadFailed):
        _load(ollama, embeds=embeds)
    translated = _translated(ollama)
    expected = _output(native, embeds=embeds)
    assert len(expected) > 8
    assert _output(translated, embeds=embeds) == pytest.approx(expected, rel=1e-5)
    assert read_metadata(translated).dimensions == read_metadata(native).dimensions
