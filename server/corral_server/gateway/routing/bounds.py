"""How many requests may wait for one Model, and for how long: what the Model says, else what holds for all."""

from __future__ import annotations

from dataclasses import dataclass

from corral_server.gateway.directory import Entry


@dataclass(frozen=True, slots=True)
class Bounds:
    """For Models that say nothing themselves; ``wait`` is in seconds, 0 is no bound."""

    pending: int = 0
    wait: float = 0.0

    def pending_of(self, entry: Entry) -> int | None:
        own = entry.model.spec.queue.max_pending
        return (self.pending or None) if own is None else own

    def wait_of(self, entry: Entry) -> float | None:
        own = entry.model.spec.queue.wait_seconds
        return (self.wait or None) if own is None else own


NO_BOUNDS = Bounds()
