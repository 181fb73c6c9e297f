"""Slot shares: the rule, and simulations of several gateways at one runner."""

from __future__ import annotations

import random
from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral_core.contracts.runner_status import RunnerStatus
from corral_server.gateway.directory.directory import Endpoint
from corral_server.gateway.queueing.slot_shares import SlotShares, slot_share
from tests.support.planning import NOW, runner_status


def status(**by_gateway: int) -> RunnerStatus:
    """Return the status of a runner with these requests by gateway; those of ``direct`` are direct requests."""
    total = sum(by_gateway.values())
    by_gateway.pop("direct", None)
    return RunnerStatus.from_json({**runner_status(in_flight=total).to_json(NOW), "by_gateway": by_gateway}, NOW)


@pytest.mark.parametrize(
    ("slots", "runner", "contenders", "allowed"),
    [
        (4, None, [], 4),
        (4, status(), [], 4),
        (4, status(me=3), [], 4),
        (4, status(me=1, other=3), [], 1),
        (4, status(other=6), [], 0),
        (4, status(direct=1), [], 3),
        (4, None, ["other"], 2),
        (4, status(other=4), ["other"], 2),
        (4, status(other=4, third=2), ["other"], 1),
        (4, status(third=4), ["other"], 0),
        (5, status(), ["other"], 3),
        (1, status(me=1), ["a", "b", "c"], 1),
    ],
)
def test_the_slot_share_of_a_gateway(
    slots: int, runner: RunnerStatus | None, contenders: list[str], allowed: int
) -> None:
    assert slot_share(slots, runner, own="me", contenders=contenders) == allowed


def test_a_status_without_counts_by_gateway_shows_no_usage_of_others() -> None:
    assert slot_share(4, runner_status(in_flight=3), own="me", contenders=[]) == 4


class NoContenders:
    def contenders(self, key: str) -> list[str]:
        return []


def test_the_last_status_counts_until_the_runner_is_unreachable() -> None:
    shares, endpoint = SlotShares("me", NoContenders()), Endpoint("one", "127.0.0.1", 1, 4)
    shares.update("one", status(other=3))
    assert shares.capacity("a", endpoint) == 1
    shares.update("one", None)
    assert shares.capacity("a", endpoint) == 4


class Gateways:
    """Gateways with pending requests at one runner. ``status`` is the last report of the runner and the gateways."""

    def __init__(self, slots: int, queued: dict[str, int]) -> None:
        self.slots = slots
        self.queued = Counter(queued)
        self.sent = Counter[str]()
        self.arrived: deque[str] = deque()
        self.most = 0
        self.report()

    def report(self) -> None:
        self.status = status(**self.sent)
        self.contenders = {name for name, number in self.queued.items() if number}

    def send(self, name: str) -> bool:
        contenders = self.contenders - {name}
        if self.queued[name] and self.sent[name] < slot_share(self.slots, self.status, own=name, contenders=contenders):
            self.queued[name] -= 1
            self.sent[name] += 1
            self.arrived.append(name)
            self.most = max(self.most, len(self.arrived))
            return True
        return False

    def finish(self, chance: random.Random) -> None:
        """Finish one of the requests with a slot; the runner serves in order of arrival."""
        if self.arrived:
            at = chance.randrange(min(self.slots, len(self.arrived)))
            self.sent[self.arrived[at]] -= 1
            del self.arrived[at]


SITUATIONS = st.tuples(
    st.integers(1, 8), st.dictionaries(st.sampled_from("abcd"), st.integers(1, 30), min_size=1), st.integers()
)


@given(SITUATIONS)
@settings(max_examples=40)
def test_no_gateway_starves_in_any_order_with_stale_reports(made: tuple[int, dict[str, int], int]) -> None:
    slots, queued, seed = made
    chance, gateways = random.Random(seed), Gateways(slots, queued)
    for _ in range(2000):
        name = chance.choice(sorted(queued))
        while chance.random() < 0.7 and gateways.send(name):
            pass
        if chance.random() < 0.3:
            gateways.finish(chance)
        if chance.random() < 0.3:
            gateways.report()
    assert not +gateways.queued, "everybody is served in the end"


@given(SITUATIONS)
def test_gateways_exceed_the_slots_by_less_than_one_request_each_on_a_cold_start(
    made: tuple[int, dict[str, int], int],
) -> None:
    slots, queued, seed = made
    gateways = Gateways(slots, queued)
    names = sorted(queued)
    random.Random(seed).shuffle(names)
    for name in names:
        while gateways.send(name):
            pass
    assert gateways.most < slots + len(names)


@given(SITUATIONS)
def test_with_current_reports_no_slot_is_idle_while_requests_are_pending(made: tuple[int, dict[str, int], int]) -> None:
    slots, queued, seed = made
    chance, gateways = random.Random(seed), Gateways(slots, queued)
    while +gateways.queued:
        while any(gateways.send(name) for name in sorted(queued)):
            gateways.report()
        assert len(gateways.arrived) >= slots or not +gateways.queued
        gateways.finish(chance)
        gateways.report()
