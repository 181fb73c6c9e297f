"""Demand tracker: which gateways' entries count."""

from __future__ import annotations

import pytest

from corral_core.contracts.demand import ENTRY_TTL, MAX_AGE, DemandEntry
from corral_core.planning.snapshot import Demand
from corral_operator.observe.demand_tracker import DemandTracker

NOW = 1_000_000.0


@pytest.fixture
def tracker() -> DemandTracker:
    return DemandTracker()


def entry(gateway: str = "g1", *, waiting: int = 1, oldest: float = NOW, renewed: float = NOW) -> DemandEntry:
    return DemandEntry(gateway, waiting, oldest=oldest, renewed=renewed)


def test_demand_is_summed_over_the_gateways_with_the_oldest_request(tracker: DemandTracker) -> None:
    tracker.update("m", [entry(waiting=2, oldest=NOW - 3), entry("g2", waiting=3, oldest=NOW - 9)], now=NOW)
    assert tracker.demand("m", NOW) == Demand(waiting=5, oldest=NOW - 9)


def test_an_entry_without_requests_wants_the_weights_and_no_runner(tracker: DemandTracker) -> None:
    tracker.update("m", [entry(waiting=0, oldest=NOW - 9)], now=NOW)
    assert (tracker.demand("m", NOW), tracker.weights_wanted("m", NOW)) == (None, True)
    assert not tracker.weights_wanted("m", NOW + ENTRY_TTL)
    tracker.update("m", [entry(waiting=0, oldest=NOW - 9), entry("g2", waiting=3, oldest=NOW - 1)], now=NOW)
    assert tracker.demand("m", NOW) == Demand(waiting=3, oldest=NOW - 1)


def test_an_entry_expires_without_renewal(tracker: DemandTracker) -> None:
    tracker.update("m", [entry()], now=NOW)
    assert tracker.next_expiry(NOW) == NOW + ENTRY_TTL
    assert tracker.demand("m", NOW + ENTRY_TTL - 0.1) is not None
    assert tracker.demand("m", NOW + ENTRY_TTL) is None


def test_a_renewal_counts_although_the_gateways_clock_is_wrong(tracker: DemandTracker) -> None:
    tracker.update("m", [entry(renewed=NOW - 3600)], now=NOW)
    assert tracker.demand("m", NOW + 10) is not None


def test_an_unchanged_entry_is_not_renewed(tracker: DemandTracker) -> None:
    tracker.update("m", [entry()], now=NOW)
    tracker.update("m", [entry()], now=NOW + 14)
    assert tracker.demand("m", NOW + ENTRY_TTL) is None


def test_an_old_entry_in_the_first_list_does_not_count_until_it_changes(tracker: DemandTracker) -> None:
    tracker.update("m", [entry(renewed=NOW - 3600)], now=NOW, initial=True)
    assert tracker.demand("m", NOW) is None
    tracker.update("m", [entry(renewed=NOW - 3595)], now=NOW + 1)
    assert tracker.demand("m", NOW + 1) is not None


@pytest.mark.parametrize("error", [-300.0, 0.0, 300.0])
def test_the_oldest_request_is_found_whatever_the_clocks_of_the_gateways(tracker: DemandTracker, error: float) -> None:
    """The request at g1 has been pending for 20 seconds, that at g2 for 5; the clock of g1 is wrong."""
    wrong = entry(oldest=NOW - 20 + error, renewed=NOW + error)
    tracker.update("m", [wrong, entry("g2", oldest=NOW - 5)], now=NOW)
    assert tracker.demand("m", NOW) == Demand(waiting=2, oldest=NOW - 20)


def test_the_order_of_two_models_does_not_depend_on_the_clocks(tracker: DemandTracker) -> None:
    tracker.update("later", [entry(oldest=NOW - 305, renewed=NOW - 300)], now=NOW)
    tracker.update("earlier", [entry("g2", oldest=NOW + 280, renewed=NOW + 300)], now=NOW)
    earlier, later = tracker.demand("earlier", NOW), tracker.demand("later", NOW)
    assert earlier is not None
    assert later is not None
    assert earlier.oldest < later.oldest


def test_a_renewal_that_arrives_late_does_not_make_a_request_younger(tracker: DemandTracker) -> None:
    tracker.update("m", [entry(oldest=NOW - 5, renewed=NOW)], now=NOW)
    tracker.update("m", [entry(oldest=NOW - 5, renewed=NOW + 5)], now=NOW + 7)
    assert tracker.demand("m", NOW + 7) == Demand(waiting=1, oldest=NOW - 5)
    tracker.update("m", [entry(oldest=NOW + 6, renewed=NOW + 8)], now=NOW + 8)
    assert tracker.demand("m", NOW + 8) == Demand(waiting=1, oldest=NOW + 6)


@pytest.mark.parametrize("error", [-300.0, 300.0])
def test_an_entry_in_the_first_list_counts_whatever_the_clock_of_its_gateway(
    tracker: DemandTracker, error: float
) -> None:
    tracker.update("m", [entry(oldest=NOW - 5 + error, renewed=NOW + error)], now=NOW, initial=True)
    assert tracker.demand("m", NOW) == Demand(waiting=1, oldest=NOW - 5)
    assert tracker.demand("m", NOW + ENTRY_TTL) is None


@pytest.mark.parametrize(("oldest", "renewed"), [(-62e9, 253e9), (253e9, -62e9)])
def test_an_age_is_bounded(tracker: DemandTracker, oldest: float, renewed: float) -> None:
    tracker.update("m", [entry(oldest=oldest, renewed=renewed)], now=NOW)
    demand = tracker.demand("m", NOW)
    assert demand is not None
    assert NOW - MAX_AGE <= demand.oldest <= NOW


def test_a_removed_entry_does_not_count(tracker: DemandTracker) -> None:
    tracker.update("m", [entry()], now=NOW)
    tracker.update("m", [], now=NOW + 1)
    assert tracker.demand("m", NOW + 1) is None
