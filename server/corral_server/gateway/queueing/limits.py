"""Queue limits of a Model: its own, or the defaults of the installation."""

from __future__ import annotations

from dataclasses import dataclass

from corral_server.gateway.directory.directory import ModelEntry


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Defaults for Models without ``spec.queue``. ``max_wait`` is in seconds; 0 means no limit for both."""

    max_pending: int = 0
    max_wait: float = 0.0

    def max_pending_for(self, entry: ModelEntry) -> int | None:
        model_limit = entry.model.spec.queue.max_pending
        return (self.max_pending or None) if model_limit is None else model_limit

    def max_wait_for(self, entry: ModelEntry) -> float | None:
        model_limit = entry.model.spec.queue.max_wait_seconds
        return (self.max_wait or None) if model_limit is None else model_limit


NO_LIMITS = QueueLimits()
