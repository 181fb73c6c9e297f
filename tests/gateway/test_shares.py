"""How gateways share a runner's slots: the rule in numbers, and several gateways at one runner, step by step."""

from __future__ import annotations

import random
from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral_core.activity import Activity
from corral_server.gateway.directory import Endpoint
from corral_server.gateway.shares import Shares, allowance
from tests.support.planning import activity


def said(**by_gateway: int) -> Activity:
    """A runner with so many requests of each gateway; those of ``nobody`` came some other way."""
    total = sum(by_gateway.values())
    by_gateway.pop("nobody", None)
    return Activity.from_json({**activity(in_flight=total).to_json(), "by_gateway": by_gateway})


@pytest.mark.parametrize(
    ("slots", "runner", "rivals", "allowed"),
    [
        (4, None, [], 4),
        (4, said(), [], 4),
        (4, said(me=3), [], 4),
        (4, said(me=1, other=3), [], 1),
        (4, said(other=6), [], 0),
        (4, said(nobody=1), [], 3),
        (4, None, ["other"], 2),
        (4, said(other=4), ["other"], 2),
        (4, said(other=4, third=2), ["other"], 1),
        (4, said(third=4), ["other"], 0),
        (5, said(), ["other"], 3),
        (1, said(me=1), ["a", "b", "c"], 1),
    ],
)
def test_the_rule(slots: int, runner: Activity | None, rivals: list[str], allowed: int) -> None:
    assert allowance(slots, runner, own="me", rivals=rivals) == allowed


def test_a_runner_that_does_not_tell_gateways_apart_says_nothing_of_others() -> None:
    assert allowance(4, activity(in_flight=3), own="me", rivals=[]) == 4


class NoRivals:
    def rivals(self, key: str) -> list[str]:
        return []


def test_what_a_runner_said_counts_until_it_cannot_be_asked() -> None:
    shares, endpoint = Shares("me", NoRivals()), Endpoint("one", "127.0.0.1", 1, 4)
    shares.heard("one", said(other=3))
    assert shares.allowed("a", endpoint) == 1
    shares.heard("one", None)
    assert shares.allowed("a", endpoint) == 4


class Town:
    """Gateways with full queues at one runner. News is what the runner and the gateways have said to all, at times."""

    def __init__(self, slots: int, queued: dict[str, int]) -> None:
        self.slots = slots
        self.queued = Counter(queued)
        self.sent = Counter[str]()
        self.arrived: deque[str] = deque()
        self.most = 0
        self.tell()

    def tell(self) -> None:
        self.news = said(**self.sent)
        self.rivals = {name for name, number in self.queued.items() if number}

    def send(self, name: str) -> bool:
        rivals = self.rivals - {name}
        if self.queued[name] and self.sent[name] < allowance(self.slots, self.news, own=name, rivals=rivals):
            self.queued[name] -= 1
            self.sent[name] += 1
            self.arrived.append(name)
            self.most = max(self.most, len(self.arrived))
            return True
        return False

    def finish(self, chance: random.Random) -> None:
        """One of those that have a slot ends; the runner serves in the order of arrival."""
        if self.arrived:
            at = chance.randrange(min(self.slots, len(self.arrived)))
            self.sent[self.arrived[at]] -= 1
            del self.arrived[at]


TOWNS = st.tuples(
    st.integers(1, 8), st.dictionaries(st.sampled_from("abcd"), st.integers(1, 30), min_size=1), st.integers()
)


@given(TOWNS)
@settings(max_examples=40)
def test_no_gateway_starves_whatever_the_order_and_however_late_the_news(made: tuple[int, dict[str, int], int]) -> None:
    slots, queued, seed = made
    chance, town = random.Random(seed), Town(slots, queued)
    for _ in range(2000):
        name = chance.choice(sorted(queued))
        while chance.random() < 0.7 and town.send(name):
            pass
        if chance.random() < 0.3:
            town.finish(chance)
        if chance.random() < 0.3:
            town.tell()
    assert not +town.queued, "everybody is served in the end"


@given(TOWNS)
def test_at_the_wake_of_a_model_gateways_do_not_all_send_as_much_as_there_are_slots(
    made: tuple[int, dict[str, int], int],
) -> None:
    slots, queued, seed = made
    town = Town(slots, queued)
    names = sorted(queued)
    random.Random(seed).shuffle(names)
    for name in names:
        while town.send(name):
            pass
    assert town.most < slots + len(names)


@given(TOWNS)
def test_with_fresh_news_no_slot_is_empty_while_somebody_waits(made: tuple[int, dict[str, int], int]) -> None:
    slots, queued, seed = made
    chance, town = random.Random(seed), Town(slots, queued)
    while +town.queued:
        while any(town.send(name) for name in sorted(queued)):
            town.tell()
        assert len(town.arrived) >= slots or not +town.queued
        town.finish(chance)
        town.tell()
