"""Order of pending requests between namespaces."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from corral_server.gateway.queueing.fair_order import FairOrder

NAMESPACES = ("a", "b", "c")
WEIGHTS = {"b": 2.0, "c": 0.5}


@dataclass(eq=False)
class Request:
    number: int
    namespace: str


def order(*namespaces: str, weights: dict[str, float] | None = None) -> FairOrder[Request]:
    made: FairOrder[Request] = FairOrder(weights or {})
    for number, namespace in enumerate(namespaces):
        made.append(Request(number, namespace))
    return made


def drain(pending: FairOrder[Request], slots: int = 1) -> str:
    """Serve all requests on ``slots`` slots, the oldest running one ends first; return the namespaces in order."""
    running: list[Request] = []
    served = ""
    while pending:
        if len(running) == slots:
            running.pop(0)
        running.append(pending.pop(lambda: running))
        served += running[-1].namespace
    return served


def test_requests_of_one_namespace_are_served_in_order_of_arrival() -> None:
    pending = order(*"aaaa")
    assert [pending.pop(list).number for _ in range(4)] == [0, 1, 2, 3]


def test_a_flood_delays_another_namespace_by_one_request() -> None:
    assert drain(order(*"a" * 50, "b")).index("b") <= 1
    assert drain(order(*"a" * 50, "b"), slots=4).index("b") <= 1


def test_namespaces_are_served_by_their_weights() -> None:
    served = drain(order(*"a" * 40, *"b" * 40, *"c" * 40, weights=WEIGHTS))
    counts = Counter(served[:35])
    assert {key: round(counts[key] / 5) for key in NAMESPACES} == {"a": 2, "b": 4, "c": 1}


def test_slots_that_are_held_count_first() -> None:
    pending = order(*"aab")
    assert pending.pop(lambda: [Request(9, "a"), Request(10, "a")]).namespace == "b"


def test_an_absent_namespace_gets_no_credit() -> None:
    pending = order(*"aabb")
    for _ in range(3):
        pending.pop(list)
    for number in range(100, 110):
        pending.append(Request(number, "c"))
        pending.append(Request(number + 10, "a"))
    assert Counter(pending.pop(list).namespace for _ in range(9)).keys() >= {"a", "c"}


def test_a_reinserted_request_is_the_first_of_its_namespace() -> None:
    pending = order(*"aba")
    first = pending.pop(list)
    pending.reinsert(first)
    assert [one.number for one in pending] == [0, 1, 2]
    oldest = pending.oldest()
    assert oldest is first


@given(
    st.lists(st.sampled_from(NAMESPACES), min_size=1, max_size=60), st.integers(1, 4), st.sampled_from([{}, WEIGHTS])
)
def test_no_namespace_starves_and_each_is_first_in_first_out(
    arrivals: list[str], slots: int, weights: dict[str, float]
) -> None:
    pending = order(*arrivals, weights=weights)
    running: list[Request] = []
    waited = dict.fromkeys(arrivals, 0)
    last = dict.fromkeys(arrivals, -1)
    while pending:
        if len(running) == slots:
            running.pop(0)
        request = pending.pop(lambda: running)
        running.append(request)
        assert last[request.namespace] < request.number
        last[request.namespace] = request.number
        waiting = {one.namespace for one in pending}
        waited = {name: 0 if name == request.namespace else waited[name] + (name in waiting) for name in waited}
        assert max(waited.values()) <= 8 * slots + 8, "weights differ by a factor of 4"
