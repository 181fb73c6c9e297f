"""Admission rule; ``test_queue_properties`` checks it in random interleavings."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_server.gateway.queueing.admission import (
    GatewayUsage,
    ModelQueueFull,
    NoPeerPending,
    QueueAdmission,
    QueueFull,
)

MODELS = st.sampled_from("abcdef")


def admits(admission: QueueAdmission, key: str, *, most: int | None = None, namespace: str = "") -> bool:
    try:
        admission.check(key, max_pending=most, namespace=namespace)
    except QueueFull:
        return False
    return True


def test_the_limit_is_exact_for_one_model() -> None:
    usage = GatewayUsage()
    admission = QueueAdmission(512, usage, NoPeerPending())
    for _ in range(512):
        assert admits(admission, "a")
        usage.add("a", 1)
    assert not any(admits(admission, "a") for _ in range(100))
    usage.add("a", -1)
    assert admits(admission, "a")


def test_a_full_queue_still_admits_one_request_of_each_other_model() -> None:
    usage = GatewayUsage()
    admission = QueueAdmission(3, usage, NoPeerPending())
    usage.add("a", 3)
    assert admits(admission, "b")
    usage.add("b", 1)
    assert not admits(admission, "b")
    usage.add("a", -1)
    assert not admits(admission, "a"), "the flood gives back what was over the limit"
    assert admits(admission, "c")


def test_a_queue_with_one_request_per_model_admits_no_further_model() -> None:
    usage = GatewayUsage()
    for key in "abc":
        usage.add(key, 1)
    assert not admits(QueueAdmission(3, usage, NoPeerPending()), "d")


def test_the_limit_of_the_model_is_checked_first() -> None:
    usage = GatewayUsage()
    usage.add("a", 2)
    with pytest.raises(ModelQueueFull):
        QueueAdmission(2, usage, NoPeerPending()).check("a", max_pending=2)


def test_a_flood_of_one_namespace_leaves_each_other_its_share() -> None:
    usage = GatewayUsage()
    admission = QueueAdmission(8, usage, NoPeerPending(), weights={"big": 2.0})
    usage.add("flood/a", 8, "flood")
    assert not admits(admission, "flood/a", namespace="flood")
    admitted = {"good": 0, "big": 0}
    for namespace in admitted:
        while admits(admission, "good/b", namespace=namespace):
            usage.add("good/b", 1, namespace)
            admitted[namespace] += 1
    assert admitted == {"good": 4, "big": 4}, "half of 8; and 2/4 of it, up to twice the limit in all"
    usage.add("flood/a", -4, "flood")
    assert usage.pending_total == 12
    assert not admits(admission, "flood/a", namespace="flood"), "the flood gives back what is over the limit"
    assert not admits(admission, "good/b", namespace="good")


def test_many_models_of_one_namespace_lock_out_no_other_namespace() -> None:
    usage = GatewayUsage()
    admission = QueueAdmission(4, usage, NoPeerPending())
    for number in range(9):
        if admits(admission, f"flood/{number}", namespace="flood"):
            usage.add(f"flood/{number}", 1, "flood")
    assert usage.pending_total == 4
    assert admits(admission, "good/b", namespace="good")


def test_the_limit_of_a_shared_model_is_shared_too() -> None:
    usage = GatewayUsage()
    admission = QueueAdmission(100, usage, NoPeerPending())
    usage.add("base/m", 4, "flood")
    assert not admits(admission, "base/m", most=4, namespace="flood")
    assert admits(admission, "base/m", most=4, namespace="good")
    usage.add("base/m", 2, "good")
    assert not admits(admission, "base/m", most=4, namespace="good")


@given(
    limit=st.integers(1, 6),
    arrivals=st.lists(st.tuples(st.sampled_from("xyz"), MODELS, st.booleans()), max_size=80),
    weights=st.dictionaries(st.sampled_from("xyz"), st.sampled_from([0.5, 2.0, 5.0])),
)
def test_a_namespace_below_its_share_is_admitted_whatever_the_others_do(
    limit: int, arrivals: list[tuple[str, str, bool]], weights: dict[str, float]
) -> None:
    usage = GatewayUsage()
    admission = QueueAdmission(limit, usage, NoPeerPending(), weights=weights)
    for namespace, key, comes in arrivals:
        pending = usage.pending.get(key, {})
        if not comes:
            if namespace in pending:
                usage.add(key, -1, namespace)
            continue
        by_namespace: Counter[str] = Counter()
        for each in usage.pending.values():
            by_namespace.update(each)
        active = {*by_namespace, namespace}
        share = limit * weights.get(namespace, 1.0) / sum(weights.get(each, 1.0) for each in active)
        admitted = admits(admission, key, namespace=namespace)
        if by_namespace[namespace] < share and usage.pending_total < 2 * limit:
            assert admitted
        if admitted:
            usage.add(key, 1, namespace)
        assert usage.pending_total <= 2 * limit + len("xyz") * len("abcdef")
        assert usage.pending_total == sum(usage.pending_by_model.values())


@given(limit=st.integers(1, 5), arrivals=st.lists(st.tuples(MODELS, st.booleans()), max_size=60))
def test_the_limit_is_exceeded_by_at_most_one_request_for_each_model_but_the_first(
    limit: int, arrivals: list[tuple[str, bool]]
) -> None:
    """Requests arrive and leave in any order; one model never locks out a model without pending requests."""
    usage = GatewayUsage()
    admission = QueueAdmission(limit, usage, NoPeerPending())
    for key, comes in arrivals:
        if not comes:
            if key in usage.pending_by_model:
                usage.add(key, -1)
            continue
        admitted = admits(admission, key)
        if usage.pending_total < limit:
            assert admitted, "there is room"
        elif key in usage.pending_by_model:
            assert not admitted, "the limit is exact for a model with pending requests"
        elif len(usage.pending_by_model) < limit:
            assert admitted, "a model has more than one pending request"
        if admitted:
            usage.add(key, 1)
        assert usage.pending_total <= limit + max(0, len(usage.pending_by_model) - 1)
