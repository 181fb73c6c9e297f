"""What the operator says of itself to the kubelet: whether to start it anew, and whether it is of use.

Alive: the workers get on. An operator that waits for the Lease, or for an API server that is away, is alive; one whose
worker sits on a Model for longer than all of its calls' time limits together is not, although its HTTP answers.
Ready: it acts, or it stands by for the one that does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from corral_operator.workqueue import WorkQueue

STUCK = 180.0
"""Seconds without any progress of a worker after which it is given up. Looking at a Model takes a few calls to the API
server, each of which ends after 15 s at the latest."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``text`` is one line for people."""

    good: bool
    text: str


class Health:
    """Lives as long as the process; terms of holding the Lease come and go. Used on one event loop."""

    def __init__(self) -> None:
        self._queue: WorkQueue | None = None
        self._acts = False
        self._stands_by: Callable[[], bool] = lambda: False

    def begin(self, queue: WorkQueue, stands_by: Callable[[], bool]) -> None:
        """A term's wait for the Lease begins; ``stands_by`` tells whether another operator was seen to hold it."""
        self._queue, self._stands_by = queue, stands_by

    def act(self) -> None:
        """The Lease is held, and everything has been listed."""
        self._acts = True

    def end(self) -> None:
        """The term is over."""
        self._acts, self._queue, self._stands_by = False, None, lambda: False

    def alive(self) -> Verdict:
        silent = self._queue.stalled() if self._queue is not None and self._acts else 0.0
        if silent > STUCK:
            return Verdict(False, f"no progress for {silent:.0f} s")
        return Verdict(True, "alive")

    def ready(self) -> Verdict:
        if self._acts:
            return Verdict(True, "acting")
        if self._stands_by():
            return Verdict(True, "standing by: another operator acts")
        return Verdict(False, "starting")
