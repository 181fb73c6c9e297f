"""Admission at several gateways that exchange reports at random times: the limit over all of them."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from corral_server.gateway.queueing.admission import GatewayUsage, QueueAdmission, QueueFull

GATEWAYS, MODELS = ("one", "two", "three"), ("a", "b")
Step = tuple[str, str, str]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("arrive", "arrive", "leave", "report")), st.sampled_from(GATEWAYS), st.sampled_from(MODELS)
    ),
    max_size=120,
)


class Reports:
    """Last reports of the peers."""

    def __init__(self) -> None:
        self.pending: dict[str, Counter[str]] = {}

    def pending_total(self) -> int:
        return sum(each.total() for each in self.pending.values())

    def pending_for(self, key: str) -> int:
        return sum(each[key] for each in self.pending.values())

    def pending_by_namespace(self) -> dict[str, dict[str, int]]:
        models = {key for each in self.pending.values() for key in each}
        return {key: {"": self.pending_for(key)} for key in models}


class Installation:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.usages = {name: GatewayUsage() for name in GATEWAYS}
        self.reports = {name: Reports() for name in GATEWAYS}
        self.admissions = {name: QueueAdmission(limit, self.usages[name], self.reports[name]) for name in GATEWAYS}
        self.unreported = 0

    @property
    def total(self) -> int:
        return sum(usage.pending_total for usage in self.usages.values())

    def step(self, action: str, name: str, key: str) -> None:
        if action == "report":
            for receiver in GATEWAYS:
                self.reports[receiver].pending = {
                    other: Counter(self.usages[other].pending_by_model) for other in GATEWAYS if other != receiver
                }
            self.unreported = 0
        elif action == "leave":
            if key in self.usages[name].pending_by_model:
                self.usages[name].add(key, -1)
        else:
            self.arrive(name, key)

    def arrive(self, name: str, key: str) -> None:
        try:
            self.admissions[name].check(key)
        except QueueFull:
            return
        self.usages[name].add(key, 1)
        self.unreported += 1


@given(limit=st.integers(1, 8), steps=STEPS)
def test_the_excess_is_limited_by_the_arrivals_since_the_last_report(limit: int, steps: list[Step]) -> None:
    installation, excess = Installation(limit), 0
    for action, name, key in steps:
        installation.step(action, name, key)
        if action == "report":
            excess = max(0, installation.total - limit)  # only unreported arrivals can increase it
        assert installation.total <= limit + max(excess, len(MODELS) - 1) + installation.unreported


@given(limit=st.integers(1, 8), steps=STEPS)
def test_with_a_report_after_every_change_the_limit_is_that_of_one_gateway(limit: int, steps: list[Step]) -> None:
    installation = Installation(limit)
    for action, name, key in steps:
        pending = sum((Counter(usage.pending_by_model) for usage in installation.usages.values()), Counter[str]())
        before = installation.total
        installation.step(action, name, key)
        installation.step("report", name, key)
        if action == "arrive" and pending.total() < limit:
            assert installation.total == before + 1
        elif action == "arrive" and key in pending:
            assert installation.total == before
        assert installation.total <= limit + len(MODELS) - 1
