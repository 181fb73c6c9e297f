"""What a runner is expected to take, from sizes alone; the real engine is asked in tests/runner."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.estimate import MIB, estimate
from corral_core.load import CACHE_TYPES, Load
from corral_core.shape import Shape

SMOLLM2 = Shape(
    weights=96_576_000,
    layers=30,
    embedding=576,
    vocabulary=49152,
    keys=5760,
    values=5760,
    heads=9,
    query=576,
    key_value=384,
    feed_forward=1536,
)
LOADS = st.builds(
    Load,
    context=st.integers(4, 1 << 20),
    parallel=st.integers(1, 64),
    batch=st.integers(1, 4096),
    cache_type=st.sampled_from(CACHE_TYPES),
    flash_attention=st.sampled_from([None, True, False]),
)


def test_the_kv_cache_is_context_times_parallel() -> None:
    assert estimate(SMOLLM2, Load(4096, 4)).kv == 4 * 4096 * 2 * 11520


@pytest.mark.parametrize(("kind", "share"), [("f32", 2.0), ("q8_0", 34 / 64), ("q4_0", 18 / 64), ("q5_1", 24 / 64)])
def test_a_quantised_cache_takes_its_blocks_true_sizes(kind: str, share: float) -> None:
    assert estimate(SMOLLM2, Load(4096, 4, cache_type=kind)).kv == math.ceil(360 * share) * MIB


def test_the_cells_of_a_request_are_a_multiple_of_256() -> None:
    assert estimate(SMOLLM2, Load(300, 2)).kv == estimate(SMOLLM2, Load(512, 2)).kv


def test_a_recurrent_state_counts_for_each_request() -> None:
    with_state = dataclasses.replace(SMOLLM2, state=MIB)
    assert estimate(with_state, Load(4096, 4)).kv - estimate(SMOLLM2, Load(4096, 4)).kv == 4 * 4 * MIB


def test_without_flash_attention_scores_are_held_for_every_head() -> None:
    fast, slow = (estimate(SMOLLM2, Load(4096, 4, flash_attention=flash)).graph for flash in (True, False))
    assert slow - fast > 4 * 512 * 4096 * 8


def test_the_text_names_every_part() -> None:
    told = str(estimate(SMOLLM2, Load(4096, 4)))
    assert told == ("596 MiB: weights 93, KV cache 360 for 4 x 4096 tokens, computing 23, the process 120")


@given(LOADS, LOADS)
def test_more_of_anything_never_takes_less(one: Load, other: Load) -> None:
    kind, flash = one.cache_type, one.flash_attention
    more = Load(
        max(one.context, other.context), max(one.parallel, other.parallel), max(one.batch, other.batch), kind, flash
    )
    assert estimate(SMOLLM2, one).total <= estimate(SMOLLM2, more).total


@given(LOADS)
def test_the_parts_make_the_whole(load: Load) -> None:
    made = estimate(SMOLLM2, load)
    assert made.total == made.weights + made.kv + made.graph + made.embedding + made.overhead


def test_a_model_that_only_embeds_holds_one_context() -> None:
    alone = estimate(SMOLLM2, Load(4096, 1, generates=False, embedding=4096))
    assert (alone.kv, alone.graph) == (0, 0)
    assert alone.embedding > 90 * MIB + 4 * 4096 * 49152
    assert "KV" not in str(alone)


def test_embeddings_count_beside_what_generates() -> None:
    without, made = estimate(SMOLLM2, Load(4096, 4)), estimate(SMOLLM2, Load(4096, 4, embedding=512))
    assert made.total - without.total == made.embedding > 101 * MIB
    assert f"embeddings of 4096 tokens {made.embedding // MIB}" in str(made)
