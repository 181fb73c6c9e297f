"""Which gateways' demand counts."""

from __future__ import annotations

from corral_core.demand import LIFETIME, DemandEntry
from corral_core.snapshot import Demand
from corral_operator.ledger import DemandLedger

NOW = 1_000_000.0


def entry(gateway: str = "g1", *, waiting: int = 1, oldest: float = NOW, renewed: float = NOW) -> DemandEntry:
    return DemandEntry(gateway, waiting, oldest=oldest, renewed=renewed)


def test_demand_is_summed_over_the_gateways_with_the_oldest_request() -> None:
    ledger = DemandLedger()
    ledger.note("m", [entry(waiting=2, oldest=NOW - 3), entry("g2", waiting=3, oldest=NOW - 9)], now=NOW)
    assert ledger.demand("m", NOW) == Demand(waiting=5, oldest=NOW - 9)


def test_an_entry_that_is_not_renewed_stops_counting() -> None:
    ledger = DemandLedger()
    ledger.note("m", [entry()], now=NOW)
    assert ledger.next_end(NOW) == NOW + LIFETIME
    assert ledger.demand("m", NOW + LIFETIME - 0.1) is not None
    assert ledger.demand("m", NOW + LIFETIME) is None


def test_a_renewal_counts_although_the_gateways_clock_is_wrong() -> None:
    ledger = DemandLedger()
    ledger.note("m", [entry(renewed=NOW - 3600)], now=NOW)
    assert ledger.demand("m", NOW + 10) is not None


def test_hearing_an_unchanged_entry_again_does_not_renew_it() -> None:
    ledger = DemandLedger()
    ledger.note("m", [entry()], now=NOW)
    ledger.note("m", [entry()], now=NOW + 14)
    assert ledger.demand("m", NOW + LIFETIME) is None


def test_an_old_entry_found_at_the_start_does_not_count_until_it_changes() -> None:
    ledger = DemandLedger()
    ledger.note("m", [entry(renewed=NOW - 3600)], now=NOW, found=True)
    assert ledger.demand("m", NOW) is None
    ledger.note("m", [entry(renewed=NOW - 3595)], now=NOW + 1)
    assert ledger.demand("m", NOW + 1) is not None


def test_a_withdrawn_entry_does_not_count() -> None:
    ledger = DemandLedger()
    ledger.note("m", [entry()], now=NOW)
    ledger.note("m", [], now=NOW + 1)
    assert ledger.demand("m", NOW + 1) is None
