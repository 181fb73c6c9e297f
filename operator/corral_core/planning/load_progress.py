"""Progress of a runner's start: created, on a node, with an address, pulling, loading, loaded.

A start is given up for want of progress, not for its length: 40 GiB from a slow disk take more than half an hour. What
counts is decided here, from what a process that plans observes, on its own clock:

- A start progresses only when it gets further than ever before. So a runner that repeats itself does not progress, and
  one that reports ever smaller steps ends: the status has three decimals.
- A pod that pulls its weights progresses with each thousandth of them, so one that is not honest ends as well.
- A runner that was loaded and loads again has restarted, and its start begins again.
"""

from __future__ import annotations

from corral_core.contracts.pull_status import PullStatus
from corral_core.contracts.runner_status import RunnerStatus

CREATED, ON_NODE, HAS_ADDRESS, PULLED = -3.0, -2.0, -1.0, -0.5
LOADED = 2.0
"""Stages of a start; between ``PULLED`` and ``LOADED`` it is the loaded fraction of the weights, from 0 to 1."""

_UNKNOWN_TOTAL = 32 * 1024**3
"""Bytes to pull if a source does not say its size."""


class LoadProgress:
    """One runner. ``progress_at`` is when its start got further."""

    __slots__ = ("_furthest", "progress_at")

    def __init__(self, now: float) -> None:
        self.progress_at = now
        self._furthest = CREATED

    def observe_stage(self, stage: float, now: float) -> None:
        """Record the stage of the start at ``now`` (Unix seconds)."""
        if stage > self._furthest:
            self._furthest, self.progress_at = stage, now

    def observe_pull(self, status: PullStatus, now: float) -> None:
        """Record the progress of a pod that pulls its weights."""
        fraction = round(min(status.completed / (status.total or _UNKNOWN_TOTAL), 1.0), 3)
        self.observe_stage(HAS_ADDRESS + (PULLED - HAS_ADDRESS) * fraction, now)

    def observe_status(self, status: RunnerStatus | None, now: float) -> None:
        """Record a runner status; None, for a runner that is not reachable, is no progress."""
        if status is None:
            return
        if status.loaded:
            self.observe_stage(LOADED, now)
            return
        if self._furthest == LOADED:
            self._furthest = CREATED
        self.observe_stage(min(max(status.load_progress, 0.0), 1.0), now)
