"""Memory estimate from dimensions; tests/runner compares it with the real engine."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.contracts.model_metadata import ComputeBuffer, ModelDimensions
from corral_core.weights.load_config import KV_CACHE_TYPES, LoadConfig, embedding_context
from corral_core.weights.memory.context_memory import planned_compute
from corral_core.weights.memory_estimate import MIB, estimate_memory

SMOLLM2 = ModelDimensions(
    weights=96_576_000,
    layers=30,
    embedding=576,
    vocabulary=49152,
    keys=5760,
    values=5760,
    padded_values=5760,
    heads=9,
    query=576,
    key_value=384,
    feed_forward=1536,
)
PLANNED = dataclasses.replace(
    SMOLLM2,
    compute_buffers=tuple(
        ComputeBuffer(parallel, kind, context, size * MIB)
        for parallel, kind, context, size in (
            (1, "f16", 512, 10),
            (1, "f16", 4608, 14),
            (4, "f16", 512, 12),
            (4, "f16", 4608, 16),
            (1, "q8_0", 512, 8),
        )
    ),
)
LOADS = st.builds(
    LoadConfig,
    context_length=st.integers(4, 1 << 20),
    parallel=st.integers(1, 64),
    batch_size=st.integers(1, 4096),
    kv_cache_type=st.sampled_from(KV_CACHE_TYPES),
    flash_attention=st.sampled_from([None, True, False]),
)


def test_kv_cache_is_context_times_parallel() -> None:
    assert estimate_memory(SMOLLM2, LoadConfig(4096, 4)).kv_cache == 4 * 4096 * 2 * 11520


@pytest.mark.parametrize(("kind", "share"), [("f32", 2.0), ("q8_0", 34 / 64), ("q4_0", 18 / 64), ("q5_1", 24 / 64)])
def test_quantised_kv_cache_uses_the_block_sizes(kind: str, share: float) -> None:
    assert estimate_memory(SMOLLM2, LoadConfig(4096, 4, kv_cache_type=kind)).kv_cache == math.ceil(360 * share) * MIB


def test_kv_cells_are_a_multiple_of_256() -> None:
    assert (
        estimate_memory(SMOLLM2, LoadConfig(300, 2)).kv_cache == estimate_memory(SMOLLM2, LoadConfig(512, 2)).kv_cache
    )


def test_recurrent_state_counts_per_sequence() -> None:
    with_state = dataclasses.replace(SMOLLM2, state=MIB)
    assert (
        estimate_memory(with_state, LoadConfig(4096, 4)).kv_cache
        - estimate_memory(SMOLLM2, LoadConfig(4096, 4)).kv_cache
        == 4 * 4 * MIB
    )


def test_scores_of_every_head_count_without_flash_attention() -> None:
    fast, slow = (
        estimate_memory(SMOLLM2, LoadConfig(4096, 4, flash_attention=flash)).compute for flash in (True, False)
    )
    assert slow - fast > 4 * 512 * 4096 * 8


@pytest.mark.parametrize(
    ("load", "planned"),
    [
        (LoadConfig(512, 1), 10),
        (LoadConfig(4608, 1), 14),
        (LoadConfig(2560, 1), 12),
        (LoadConfig(2560, 2), 14),
        (LoadConfig(2560, 4), 14),
        (LoadConfig(100, 1), 10),
        (LoadConfig(512, 1, kv_cache_type="q4_0"), 8),
        (LoadConfig(4609, 1), None),
        (LoadConfig(2560, 5), None),
        (LoadConfig(2560, 1, 513), None),
        (LoadConfig(2560, 1, flash_attention=False), None),
        (LoadConfig(2560, 1, kv_cache_type="f32"), None),
        (LoadConfig(513, 1, kv_cache_type="q8_0"), None),
    ],
)
def test_planned_compute_buffers_hold_for_contexts_between(load: LoadConfig, planned: int | None) -> None:
    assert planned_compute(PLANNED, load) == (planned if planned is None else planned * MIB)


def test_planned_compute_buffers_replace_the_formula_if_they_are_smaller() -> None:
    load = LoadConfig(512, 1)
    assert estimate_memory(PLANNED, load).compute == 11 * MIB < estimate_memory(SMOLLM2, load).compute
    large = dataclasses.replace(SMOLLM2, compute_buffers=(ComputeBuffer(1, "f16", 512, 1 << 40),))
    assert estimate_memory(large, load) == estimate_memory(SMOLLM2, load)


def test_smaller_batches_take_less_than_planned() -> None:
    assert planned_compute(PLANNED, LoadConfig(512, 1, 51)) == pytest.approx(3.2 * MIB, rel=0.05)


def test_values_are_padded_without_flash_attention() -> None:
    padded = dataclasses.replace(SMOLLM2, padded_values=2 * 5760)
    loads = [LoadConfig(4096, 4, flash_attention=flash) for flash in (None, False)]
    assert [estimate_memory(padded, load).kv_cache // MIB for load in loads] == [360, 540]


def test_text_names_every_part() -> None:
    told = str(estimate_memory(SMOLLM2, LoadConfig(4096, 4)))
    assert told == (
        "728 MiB: weights 93, KV cache 360 for 4 x 4096 tokens, compute buffers 23, the process 124, requests 128"
    )


@given(LOADS, LOADS)
def test_estimate_is_monotonic(one: LoadConfig, other: LoadConfig) -> None:
    kind, flash = one.kv_cache_type, one.flash_attention
    more = LoadConfig(
        max(one.context_length, other.context_length),
        max(one.parallel, other.parallel),
        max(one.batch_size, other.batch_size),
        kind,
        flash,
    )
    assert estimate_memory(SMOLLM2, one).total <= estimate_memory(SMOLLM2, more).total


@given(LOADS)
def test_total_is_the_sum_of_the_parts(load: LoadConfig) -> None:
    made = estimate_memory(SMOLLM2, load)
    assert made.total == made.weights + made.kv_cache + made.compute + made.embedding + made.overhead + made.requests


def test_embedding_model_has_one_context() -> None:
    alone = estimate_memory(
        SMOLLM2, LoadConfig(4096, 1, generates=False, embedding=embedding_context(4096, chunked=False))
    )
    assert (alone.kv_cache, alone.compute) == (0, 0)
    assert alone.embedding > 90 * MIB + 4 * 4096 * 49152
    assert "KV" not in str(alone)


def test_embeddings_of_a_generative_model_are_added() -> None:
    without, made = (
        estimate_memory(SMOLLM2, LoadConfig(4096, 4)),
        estimate_memory(SMOLLM2, LoadConfig(4096, 4, embedding=embedding_context(4096, chunked=True))),
    )
    assert made.total - without.total == made.embedding > 101 * MIB
    assert f"embeddings of 4096 tokens {made.embedding // MIB}" in str(made)
