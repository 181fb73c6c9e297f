"""Memory for requests from the container's limit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.contracts.model_metadata import ModelDimensions
from corral_core.weights.load_config import LoadConfig
from corral_core.weights.memory_estimate import MIB, REQUEST_BYTES, estimate_memory
from corral_server.runner.chat.loaded_model import LoadedModel
from corral_server.runner.lifecycle.request_memory import MINIMUM, request_memory
from corral_server.system.cgroup_memory import ContainerMemory
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import runner_state

DIMENSIONS = ModelDimensions(96 * MIB, 30, 576, 49152, keys=5760, values=5760)


def loaded(engine_bytes: int, vram_bytes: int = 0) -> LoadedModel:
    state = runner_state(FakeEngine(size_bytes=engine_bytes, vram_bytes=vram_bytes))
    assert state.loaded is not None
    return replace(state.loaded, metadata=replace(state.loaded.metadata, dimensions=DIMENSIONS))


def test_a_limit_from_the_estimate_leaves_what_the_estimate_has_for_requests() -> None:
    estimate = estimate_memory(DIMENSIONS, LoadConfig(4096, 2))
    container = ContainerMemory(estimate.total, used=100 * MIB)
    assert request_memory(loaded(estimate.engine), container) == REQUEST_BYTES == estimate.requests


def test_memory_that_the_load_did_not_take_is_for_requests() -> None:
    container = ContainerMemory(4096 * MIB, used=600 * MIB)
    assert request_memory(loaded(500 * MIB), container) == (4096 - 500 - 122) * MIB


def test_memory_of_gpus_does_not_count() -> None:
    container = ContainerMemory(4096 * MIB, used=600 * MIB)
    assert request_memory(loaded(3000 * MIB, 2900 * MIB), container) == (4096 - 100 - 122 - 1024) * MIB


def test_the_compute_buffer_of_the_projector_is_left_for_its_first_image() -> None:
    dims = replace(DIMENSIONS, projector=MIB, projector_compute=100 * MIB)
    plain = loaded(500 * MIB)
    seeing = replace(plain, metadata=replace(plain.metadata, dimensions=dims))
    container = ContainerMemory(4096 * MIB, used=600 * MIB)
    assert request_memory(plain, container) - request_memory(seeing, container) == 100 * MIB


def test_a_limit_that_other_processes_share_counts_by_what_is_free() -> None:
    assert request_memory(loaded(500 * MIB), ContainerMemory(4096 * MIB, used=4000 * MIB)) == 96 * MIB


@pytest.mark.parametrize("limit", [100 * MIB, 620 * MIB])
def test_small_requests_work_below_the_estimate_too(limit: int) -> None:
    assert request_memory(loaded(500 * MIB), ContainerMemory(limit, used=90 * MIB)) == MINIMUM


def test_without_a_limit_it_is_a_share_of_the_machine() -> None:
    assert request_memory(loaded(500 * MIB), None) >= REQUEST_BYTES
