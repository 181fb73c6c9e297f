"""The small real model and a context of it, without an engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from corral_server.runner.llama.context import ContextOptions, LlamaContext
from corral_server.runner.llama.model import LlamaModel
from tests.runner.engines import weights


@pytest.fixture(scope="module")
def model() -> Iterator[LlamaModel]:
    model = LlamaModel(weights())
    yield model
    model.close()


@pytest.fixture(scope="module")
def context(model: LlamaModel) -> Iterator[LlamaContext]:
    context = LlamaContext(model, ContextOptions(512, 1, batch_size=128))
    yield context
    context.close()
