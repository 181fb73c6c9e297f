"""The rule of admission in plain numbers; ``test_queue_properties`` holds the queue to it in every interleaving."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_server.gateway.admission import Admission, Holding, LineFull, Nowhere, QueueFull

MODELS = st.sampled_from("abcdef")


def admits(admission: Admission, key: str, *, most: int | None = None) -> bool:
    try:
        admission.check(key, max_pending=most)
    except QueueFull:
        return False
    return True


def test_of_one_models_requests_512_wait_and_the_513th_is_refused() -> None:
    holding = Holding()
    admission = Admission(512, holding, Nowhere())
    for _ in range(512):
        assert admits(admission, "a")
        holding.add("a", 1)
    assert not any(admits(admission, "a") for _ in range(100))
    holding.add("a", -1)
    assert admits(admission, "a")


def test_a_flood_leaves_one_place_to_each_other_model() -> None:
    holding = Holding()
    admission = Admission(3, holding, Nowhere())
    holding.add("a", 3)
    assert admits(admission, "b")
    holding.add("b", 1)
    assert not admits(admission, "b")
    holding.add("a", -1)
    assert not admits(admission, "a"), "the flood gives back what was over the limit"
    assert admits(admission, "c")


def test_with_a_model_for_each_place_nobody_has_too_much() -> None:
    holding = Holding()
    for key in "abc":
        holding.add(key, 1)
    assert not admits(Admission(3, holding, Nowhere()), "d")


def test_a_models_own_bound_comes_first() -> None:
    holding = Holding()
    holding.add("a", 2)
    with pytest.raises(LineFull):
        Admission(2, holding, Nowhere()).check("a", max_pending=2)


@given(limit=st.integers(1, 5), arrivals=st.lists(st.tuples(MODELS, st.booleans()), max_size=60))
def test_the_limit_is_exceeded_by_at_most_one_place_for_each_model_but_the_first(
    limit: int, arrivals: list[tuple[str, bool]]
) -> None:
    """Requests come and leave in any order; a request of a model for which nobody waits is never shut out by one."""
    holding = Holding()
    admission = Admission(limit, holding, Nowhere())
    for key, comes in arrivals:
        if not comes:
            if key in holding.by_key:
                holding.add(key, -1)
            continue
        admitted = admits(admission, key)
        if holding.total < limit:
            assert admitted, "there is room"
        elif key in holding.by_key:
            assert not admitted, "the limit is exact for whoever waits already"
        elif len(holding.by_key) < limit:
            assert admitted, "somebody has more than one place"
        if admitted:
            holding.add(key, 1)
        assert holding.total <= limit + max(0, len(holding.by_key) - 1)
