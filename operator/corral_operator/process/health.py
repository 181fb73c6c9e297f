"""Health of the operator for the kubelet's probes.

Alive: the workers make progress. A standby replica, or one that waits for an unreachable API server, is alive; one
whose worker has spent longer on a Model than all of its calls may take together is not, although its HTTP answers.
Ready: the replica is the leader, or a standby for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from corral_operator.reconcile.work_queue import WorkQueue

STALL_TIMEOUT = 180.0
"""Seconds without progress of a worker after which the process counts as stalled. Reconciling a Model takes a few calls
to the API server, each of which ends after 15 s at the latest."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """``text`` is one line for people."""

    healthy: bool
    text: str


class Health:
    """Lives as long as the process, over several terms of leadership. Used on one event loop."""

    def __init__(self) -> None:
        self._queue: WorkQueue | None = None
        self._leading = False
        self._standby: Callable[[], bool] = lambda: False

    def begin_election(self, queue: WorkQueue, standby: Callable[[], bool]) -> None:
        """Record that the replica waits for the Lease; ``standby`` tells whether another replica holds it."""
        self._queue, self._standby = queue, standby

    def begin_leading(self) -> None:
        """Record that the replica holds the Lease and has listed everything."""
        self._leading = True

    def end_term(self) -> None:
        self._leading, self._queue, self._standby = False, None, lambda: False

    def alive(self) -> ProbeResult:
        stalled = self._queue.stalled() if self._queue is not None and self._leading else 0.0
        if stalled > STALL_TIMEOUT:
            return ProbeResult(False, f"no progress for {stalled:.0f} s")
        return ProbeResult(True, "alive")

    def ready(self) -> ProbeResult:
        if self._leading:
            return ProbeResult(True, "leader")
        if self._standby():
            return ProbeResult(True, "standby: another replica is the leader")
        return ProbeResult(False, "starting")
