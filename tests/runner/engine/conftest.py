"""Engines with the small real model, loaded once per module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from tests.runner.engines import CONTEXT, weights


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaEngine]:
    """An engine of four slots."""
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=CONTEXT, slots=4, batch_size=128, threads=1))
    yield engine
    engine.close()


@pytest.fixture
def one_slot_engine() -> Iterator[LlamaEngine]:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=CONTEXT, slots=1, batch_size=64, threads=1))
    yield engine
    engine.close()
