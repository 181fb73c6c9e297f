"""Which gateways' demand counts: entries that are being renewed, judged by this process's own clock.

A gateway's clock may be wrong, so what counts is when the operator saw the entry change, not what the entry says. Only
entries found at the start, whose changes nobody saw, are judged by the time written in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral_core.demand import LIFETIME, DemandEntry
from corral_core.snapshot import Demand


@dataclass(frozen=True, slots=True)
class _Seen:
    entry: DemandEntry
    at: float


class DemandLedger:
    """All times are Unix seconds of this process."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, _Seen]] = {}

    def note(self, model: str, entries: Sequence[DemandEntry], *, now: float, found: bool = False) -> None:
        """The entries of a Model as they are now; ``found`` when they were there before this process looked."""
        known = self._seen.get(model, {})
        current = {}
        for entry in entries:
            seen = known.get(entry.gateway)
            if seen is not None and seen.entry == entry:
                current[entry.gateway] = seen
            else:
                current[entry.gateway] = _Seen(entry, min(entry.renewed, now) if found else now)
        if current:
            self._seen[model] = current
        else:
            self._seen.pop(model, None)

    def demand(self, model: str, now: float) -> Demand | None:
        """Who waits for the Model, over all gateways that still say so."""
        live = [seen.entry for seen in self._seen.get(model, {}).values() if now < seen.at + LIFETIME]
        if not live:
            return None
        return Demand(waiting=sum(entry.waiting for entry in live), oldest=min(entry.oldest for entry in live))

    def next_end(self, now: float) -> float | None:
        """When the next entry stops counting unless it is renewed."""
        ends = [seen.at + LIFETIME for entries in self._seen.values() for seen in entries.values()]
        return min((end for end in ends if end > now), default=None)

    def abandoned(self, now: float, *, after: float) -> list[tuple[str, str]]:
        """(Model, gateway) of entries that nobody has renewed for ``after`` seconds."""
        return [
            (model, gateway)
            for model, entries in self._seen.items()
            for gateway, seen in entries.items()
            if now > seen.at + after
        ]
