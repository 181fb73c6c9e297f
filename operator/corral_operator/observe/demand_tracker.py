"""Demand tracker: which gateways' demand entries count.

An entry counts while its gateway renews it. Expiry is measured with this process's clock from the moment an entry was
seen to change, and the arrival of the oldest request follows from its age at that moment, so a gateway with a wrong
clock is served like any other. The last change of an entry that is found at the start of the operator was not seen: it
counts as renewed now, unless it is so old that no wrong clock explains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral_core.contracts.demand import ENTRY_TTL, DemandEntry
from corral_core.planning.snapshot import Demand

MAX_CLOCK_ERROR = 900.0
"""Seconds by which the clock of a gateway may be wrong when the operator starts."""


@dataclass(frozen=True, slots=True)
class _TrackedEntry:
    """``renewed_at`` and ``oldest``, the arrival of the oldest request, are Unix seconds of this process."""

    entry: DemandEntry
    renewed_at: float
    oldest: float


class DemandTracker:
    """All times are Unix seconds of this process."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, _TrackedEntry]] = {}

    def update(self, model: str, entries: Sequence[DemandEntry], *, now: float, initial: bool = False) -> None:
        """Record the present entries of a Model; ``initial`` if they come from the first list of this process."""
        known = self._entries.get(model, {})
        current = {}
        for entry in entries:
            tracked = known.get(entry.gateway)
            if tracked is not None and tracked.entry == entry:
                current[entry.gateway] = tracked
            else:
                current[entry.gateway] = _renewed(entry, tracked, now=now, initial=initial)
        if current:
            self._entries[model] = current
        else:
            self._entries.pop(model, None)

    def demand(self, model: str, now: float) -> Demand | None:
        """Return the pending requests of the Model, summed over the gateways whose entries count; None without any."""
        live = [tracked for tracked in self._live(model, now) if tracked.entry.waiting]
        if not live:
            return None
        waiting = sum(tracked.entry.waiting for tracked in live)
        return Demand(waiting, oldest=min(tracked.oldest for tracked in live))

    def has_entries(self, model: str) -> bool:
        """Return whether a gateway reports demand for the Model, whether the entry still counts or not."""
        return model in self._entries

    def context_length(self, model: str) -> int:
        """Return the longest context in tokens that a pending request of the Model asks for, 0 without any."""
        return max((one.entry.context_length for one in self._entries.get(model, {}).values()), default=0)

    def weights_wanted(self, model: str, now: float) -> bool:
        """Return whether requests of the Model are pending, or clients wait for the pull of its weights."""
        return bool(self._live(model, now))

    def _live(self, model: str, now: float) -> list[_TrackedEntry]:
        return [tracked for tracked in self._entries.get(model, {}).values() if now < tracked.renewed_at + ENTRY_TTL]

    def next_expiry(self, now: float) -> float | None:
        """Return when the next entry expires unless it is renewed."""
        expiries = [
            tracked.renewed_at + ENTRY_TTL for entries in self._entries.values() for tracked in entries.values()
        ]
        return min((expiry for expiry in expiries if expiry > now), default=None)

    def stale_entries(self, now: float, *, after: float) -> list[tuple[str, str]]:
        """Return (Model, gateway) of the entries that were not renewed for ``after`` seconds."""
        return [
            (model, gateway)
            for model, entries in self._entries.items()
            for gateway, tracked in entries.items()
            if now > tracked.renewed_at + after
        ]


def _renewed(entry: DemandEntry, tracked: _TrackedEntry | None, *, now: float, initial: bool) -> _TrackedEntry:
    """Return a new or changed entry. An arrival never moves forward: a late renewal does not make a request younger."""
    oldest = now - entry.age
    if tracked is not None and tracked.entry.oldest == entry.oldest:
        oldest = min(oldest, tracked.oldest)
    stale = initial and now - entry.renewed > MAX_CLOCK_ERROR
    return _TrackedEntry(entry, entry.renewed if stale else now, oldest)
