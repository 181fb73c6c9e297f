"""After many requests of every kind nothing is left of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from corral_server.runner.engine import EngineOptions, LlamaEngine
from corral_server.runner.llama_sampler import Sampler
from tests.support.soak import Soak, make_decodes_fail
from tests.support.tiny_model import write

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(context_length=256, slots=6, batch=64, threads=1),
        EngineOptions(context_length=256, slots=6, batch=64, threads=1, draft=4),
    ],
    ids=["plain", "drafts"],
)
def test_hundreds_of_requests_of_every_kind_leave_nothing_behind(
    tmp_path: Path, options: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    handles: set[int] = set()
    monkeypatch.setattr(Sampler, "__init__", _opened(handles))
    monkeypatch.setattr(Sampler, "close", _closed(handles))
    engine = LlamaEngine.load(write(tmp_path), options)
    try:
        make_decodes_fail(engine)
        soak = Soak(engine)
        asyncio.run(soak.run(300))
        assert (engine.running, engine.waiting, handles) == (0, 0, set())
        assert engine.cells_in_use == sum(len(slot.cells) for slot in engine._slots)
        engine._memory.forget_idle()
        assert engine.cells_in_use == 0
        expected = {"stop", "length", "cancelled", "InvalidPrompt", "InvalidGrammar", "PromptTooLong", "EngineFailed"}
        assert set(soak.outcomes) == expected
    finally:
        engine.close()


def _opened(handles: set[int]) -> object:
    first = Sampler.__init__

    def opened(self: Sampler, handle: object) -> None:
        first(self, handle)
        handles.add(id(self))

    return opened


def _closed(handles: set[int]) -> object:
    first = Sampler.close

    def closed(self: Sampler) -> None:
        first(self)
        handles.discard(id(self))

    return closed
