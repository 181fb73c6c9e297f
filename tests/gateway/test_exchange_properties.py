"""Several gateways' admission, with news of one another that come when they come: the bound over all of them."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from corral_server.gateway.admission import Admission, Holding, QueueFull

GATEWAYS, MODELS = ("one", "two", "three"), ("a", "b")
Step = tuple[str, str, str]
STEPS = st.lists(
    st.tuples(st.sampled_from(("come", "come", "leave", "tell")), st.sampled_from(GATEWAYS), st.sampled_from(MODELS)),
    max_size=120,
)


class Heard:
    """What one gateway knows of all the others."""

    def __init__(self) -> None:
        self.held: dict[str, Counter[str]] = {}

    def total(self) -> int:
        return sum(each.total() for each in self.held.values())

    def of(self, key: str) -> int:
        return sum(each[key] for each in self.held.values())

    def keys(self) -> set[str]:
        return {key for each in self.held.values() for key in each}


class Installation:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.holdings = {name: Holding() for name in GATEWAYS}
        self.heard = {name: Heard() for name in GATEWAYS}
        self.admissions = {name: Admission(limit, self.holdings[name], self.heard[name]) for name in GATEWAYS}
        self.fresh = 0

    @property
    def total(self) -> int:
        return sum(holding.total for holding in self.holdings.values())

    def step(self, what: str, name: str, key: str) -> None:
        if what == "tell":
            for told in GATEWAYS:
                self.heard[told].held = {
                    other: Counter(self.holdings[other].by_key) for other in GATEWAYS if other != told
                }
            self.fresh = 0
        elif what == "leave":
            if key in self.holdings[name].by_key:
                self.holdings[name].add(key, -1)
        else:
            self.come(name, key)

    def come(self, name: str, key: str) -> None:
        try:
            self.admissions[name].check(key)
        except QueueFull:
            return
        self.holdings[name].add(key, 1)
        self.fresh += 1


@given(limit=st.integers(1, 8), steps=STEPS)
def test_the_total_exceeds_the_bound_only_by_what_came_since_the_last_exchange(limit: int, steps: list[Step]) -> None:
    installation, over = Installation(limit), 0
    for what, name, key in steps:
        installation.step(what, name, key)
        if what == "tell":
            over = max(0, installation.total - limit)  # what is there already only shrinks, but for newcomers
        assert installation.total <= limit + max(over, len(MODELS) - 1) + installation.fresh


@given(limit=st.integers(1, 8), steps=STEPS)
def test_with_an_exchange_after_every_change_the_bound_is_that_of_one_gateway(limit: int, steps: list[Step]) -> None:
    installation = Installation(limit)
    for what, name, key in steps:
        held = sum((Counter(holding.by_key) for holding in installation.holdings.values()), Counter[str]())
        before = installation.total
        installation.step(what, name, key)
        installation.step("tell", name, key)
        if what == "come" and held.total() < limit:
            assert installation.total == before + 1
        elif what == "come" and key in held:
            assert installation.total == before
        assert installation.total <= limit + len(MODELS) - 1
