"""Reports of a download's progress, at most one per interval."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from corral_server.pull.download.rates import RateMeter
from corral_server.pull.progress import ProgressListener, PullProgress, PullStage

_KEEP_INTERVAL: Final = 30.0
"""Seconds between two renewals of the blobs that this pull has already brought."""


class Report:
    """Passes the progress of the file ``name`` to ``listener``, and calls ``keep`` now and then in every stage."""

    def __init__(
        self, name: str, listener: ProgressListener, *, interval: float, keep: Callable[[], object] = lambda: None
    ) -> None:
        self._name = name
        self._listener = listener
        self._interval = interval
        self._meter = RateMeter()
        self._stage: PullStage | None = None
        self._next = 0.0
        self._keep = keep
        self._keep_at = 0.0

    def __call__(self, stage: PullStage, completed: int, *, total: int | None) -> None:
        """Report, if the stage is a new one or the interval has passed."""
        now = time.monotonic()
        if now >= self._keep_at:
            self._keep_at = now + _KEEP_INTERVAL
            self._keep()
        if stage is self._stage and now < self._next:
            return
        if stage is not self._stage:
            self._meter = RateMeter()
        self._stage, self._next = stage, now + self._interval
        self._listener(PullProgress(total, completed, self._meter.update(completed), self._name, stage))
