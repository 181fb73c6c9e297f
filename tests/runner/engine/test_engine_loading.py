"""Loading weights: progress, limits, and errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.llama.errors import LoadFailed
from tests.runner.engines import CONTEXT, GREEDY, answer, answers, weights
from tests.support.tiny_model import write_tiny_model

pytestmark = pytest.mark.process


def test_loading_reports_its_progress_and_its_size() -> None:
    shares: list[float] = []

    def note(share: float) -> bool:
        shares.append(share)
        return True

    engine = LlamaEngine.load(weights(), EngineOptions(context_length=CONTEXT, slots=2, threads=1), progress=note)
    try:
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
        assert (engine.context_length, engine.slots, engine.vram_bytes) == (CONTEXT, 2, 0)
        assert engine.size_bytes > weights().stat().st_size * 0.9
        assert (engine.bos_text, engine.eos_text) == ("<|im_start|>", "<|im_end|>")
        assert "im_start" in (engine.chat_template or "")
    finally:
        engine.close()


def test_the_context_length_is_limited_by_the_trained_one() -> None:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=10**6, slots=1, threads=1))
    try:
        assert engine.context_length == 2048 or engine.context_length == 8192
    finally:
        engine.close()


@pytest.mark.parametrize("damage", ["no gguf", "empty", "truncated", "missing", "folder"])
def test_the_error_for_invalid_weights_names_the_file(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "broken.gguf"
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        data = weights().read_bytes()
        path.write_bytes({"no gguf": b"hello" * 1000, "empty": b"", "truncated": data[: len(data) // 2]}[damage])
    with pytest.raises(LoadFailed, match=r"broken\.gguf cannot be loaded: "):
        LlamaEngine.load(path)


def test_loading_can_be_aborted(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed):
        LlamaEngine.load(weights(), progress=lambda _share: False)


def test_an_unknown_cache_type_is_refused() -> None:
    with pytest.raises(LoadFailed, match="q9_9"):
        LlamaEngine.load(weights(), EngineOptions(cache_type="q9_9", slots=1, context_length=CONTEXT))


def test_locked_and_warmed_up_weights_give_the_same_answer(tmp_path: Path) -> None:
    path, texts = write_tiny_model(tmp_path), []
    for on in (False, True):
        engine = LlamaEngine.load(
            path, EngineOptions(context_length=64, slots=1, threads=1, lock_weights=on, warm_up=on)
        )
        try:
            assert engine._cache.cells_used == 0
            prompt = tuple(engine.tokenize("one two", add_special=True, parse_special=False))
            texts.append(answer(engine, GenerationTask(prompt, GREEDY, max_tokens=8)).text)
        finally:
            engine.close()
    assert texts[0] == texts[1]
    assert texts[0]


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_a_batch_size_below_the_number_of_slots_serves_all_slots(tmp_path: Path, slots: int) -> None:
    """Prompts of one token are streams at once, so all of them are in the first batch."""
    engine = LlamaEngine.load(
        write_tiny_model(tmp_path), EngineOptions(context_length=64, slots=slots, batch_size=1, threads=1)
    )
    try:
        found = answers(engine, *(GenerationTask((5 + n,), GREEDY, max_tokens=3) for n in range(slots)))
    finally:
        engine.close()
    assert [len(one.result.tokens) for one in found] == [3] * slots
