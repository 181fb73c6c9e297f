"""Memory estimate and load settings of runners in local mode."""

from __future__ import annotations

import dataclasses

from corral_core.weights.load_config import LoadConfig
from corral_core.weights.memory_estimate import estimate_memory
from corral_server.local.files import ListedModel
from corral_server.local.runners.memory import RunnerMemory
from tests.core.weights.test_memory_estimate import SMOLLM2
from tests.local.parts import listed, model
from tests.operator.samples import METADATA

FOUR, ONE = (estimate_memory(SMOLLM2, LoadConfig(4096, parallel)).total for parallel in (4, 1))
ROOM = 1 << 40
KEY = "default/m"


def looked(made: ListedModel, *, capacity: int = ROOM, **environ: str) -> RunnerMemory:
    sizes = RunnerMemory(environ)
    sizes.update([made], running=(), capacity=capacity)
    return sizes


def test_the_estimate_includes_adapters_and_settings() -> None:
    metadata = dataclasses.replace(METADATA, adapters_size=5 << 20)
    made = listed(model(spec={"contextLength": 2048}), metadata=metadata)
    assert looked(made).bytes == {KEY: estimate_memory(SMOLLM2, LoadConfig(2048, 4)).total + (5 << 20)}
    alone = looked(made, OLLAMA_NUM_PARALLEL="1")
    assert alone.bytes == {KEY: estimate_memory(SMOLLM2, LoadConfig(2048, 1)).total + (5 << 20)}


def test_unknown_weights_and_invalid_settings_give_no_estimate() -> None:
    for sizes in (looked(listed(model())), looked(listed(model(), metadata=METADATA), OLLAMA_NUM_PARALLEL="many")):
        assert sizes.bytes == {}
        assert dict(sizes.settings(KEY)) == {}


def test_parallel_auto_is_one_when_four_slots_do_not_fit() -> None:
    for capacity, size, settings in (
        (FOUR, FOUR, {}),
        (FOUR - 1, ONE, {"OLLAMA_NUM_PARALLEL": "1"}),
        (1, ONE, {"OLLAMA_NUM_PARALLEL": "1"}),
    ):
        sizes = looked(listed(model(), metadata=METADATA), capacity=capacity)
        assert (sizes.bytes, dict(sizes.settings(KEY))) == ({KEY: size}, settings)


def test_an_explicit_parallel_is_kept() -> None:
    sizes = looked(listed(model(spec={"parallel": 4}), metadata=METADATA), capacity=1)
    assert (sizes.bytes, dict(sizes.settings(KEY))) == ({KEY: FOUR}, {})


def test_a_running_model_keeps_its_choice_until_it_is_edited_or_ends() -> None:
    made, edited = listed(model(), metadata=METADATA), listed(model(edition=2), metadata=METADATA)
    sizes = looked(made)
    sizes.update([made], running={KEY}, capacity=1)
    assert sizes.bytes == {KEY: FOUR}
    sizes.update([edited], running={KEY}, capacity=1)
    assert sizes.bytes == {KEY: ONE}
    sizes.update([edited], running=(), capacity=ROOM)
    assert sizes.bytes == {KEY: FOUR}


def test_a_removed_model_counts_while_it_has_a_runner() -> None:
    sizes = looked(listed(model(), metadata=METADATA))
    sizes.update([], running={KEY}, capacity=ROOM)
    assert sizes.bytes == {KEY: FOUR}
    sizes.update([], running=(), capacity=ROOM)
    assert sizes.bytes == {}


def test_a_context_grows_to_what_is_asked_for_and_fits_and_stays_while_the_model_runs() -> None:
    made = listed(model(spec={"contextPolicy": "Grow", "contextLength": 1024}), metadata=METADATA)
    sizes = looked(made)
    assert (sizes.context(KEY), dict(sizes.settings(KEY))) == ((1024, 8192), {})
    sizes.update([made], running={KEY}, capacity=ROOM, contexts={KEY: 3000})
    assert (sizes.context(KEY), dict(sizes.settings(KEY))) == ((4096, 8192), {"CORRAL_CONTEXT_LENGTH": "4096"})
    sizes.update([made], running={KEY}, capacity=ROOM)
    assert sizes.context(KEY) == (4096, 8192)
    sizes.update([made], running=(), capacity=ROOM)
    assert sizes.context(KEY) == (1024, 8192)
    sizes.update([made], running=(), capacity=ONE, contexts={KEY: 8192})
    assert sizes.context(KEY) == (4096, 4096)
    assert dict(sizes.settings(KEY)) == {"OLLAMA_NUM_PARALLEL": "1", "CORRAL_CONTEXT_LENGTH": "4096"}


def test_a_context_does_not_grow_with_the_policy_fixed() -> None:
    sizes = RunnerMemory({})
    made = listed(model(spec={"contextLength": 1024}), metadata=METADATA)
    sizes.update([made], running=(), capacity=ROOM, contexts={KEY: 3000})
    assert sizes.context(KEY) == (1024, 0)
