"""Many tasks of every kind leave no handle and no cell behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.llama.sampler import LlamaSampler
from tests.support.soak import EngineSoak, make_decodes_fail
from tests.support.tiny_model import write_tiny_model

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(context_length=256, slots=6, batch_size=64, threads=1),
        EngineOptions(context_length=256, slots=6, batch_size=64, threads=1, draft_tokens=4),
    ],
    ids=["plain", "drafts"],
)
async def test_hundreds_of_tasks_of_every_kind_leave_nothing_behind(
    tmp_path: Path, options: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    handles: set[int] = set()
    monkeypatch.setattr(LlamaSampler, "__init__", _opened(handles))
    monkeypatch.setattr(LlamaSampler, "close", _closed(handles))
    engine = LlamaEngine.load(write_tiny_model(tmp_path), options)
    try:
        make_decodes_fail(engine)
        soak = EngineSoak(engine)
        await soak.run(300)
        assert (engine.running, engine.waiting, handles) == (0, 0, set())
        assert engine._cache.cells_used == sum(len(slot.tokens) for slot in engine._slots)
        engine._cache.clear_idle_slots()
        assert engine._cache.cells_used == 0
        expected = {"stop", "length", "cancelled", "InvalidPrompt", "InvalidGrammar", "PromptTooLong", "EngineFailed"}
        assert set(soak.outcomes) == expected
    finally:
        engine.close()


def _opened(handles: set[int]) -> object:
    first = LlamaSampler.__init__

    def opened(self: LlamaSampler, handle: object) -> None:
        first(self, handle)
        handles.add(id(self))

    return opened


def _closed(handles: set[int]) -> object:
    first = LlamaSampler.close

    def closed(self: LlamaSampler) -> None:
        first(self)
        handles.discard(id(self))

    return closed
