"""Retry-After estimate for rejected requests: queue length divided by the recent completion rate.

The rate is measured only while requests are pending, once per second over a sliding window; the last rate is kept. A
model without completed requests, for example because it is loading, gets the estimate of all models together.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Mapping

from corral_server.gateway.queueing.queue import RequestQueue

SAMPLE_INTERVAL = 1.0
WINDOW_SAMPLES = 30
"""Number of sample intervals over which the rate is measured."""
MAX_RETRY_AFTER = 60
"""Seconds. Longer estimates are too inaccurate to be useful."""
DEFAULT_RETRY_AFTER = 5
"""Seconds, if no request has completed yet."""
_ALL_MODELS = ""
"""Key of the sum over all models; no Model has this key."""

Counts = Mapping[str, int]


class RetryAfterEstimator:
    """Samples the queue while requests are pending."""

    def __init__(self, queue: RequestQueue) -> None:
        self._queue = queue
        self._samples: deque[tuple[float, Counts]] = deque(maxlen=WINDOW_SAMPLES + 1)
        self._rates: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start_sampling(self) -> None:
        """Start sampling unless it is active. Called when a request is queued."""
        if self._timer is None:
            self._samples.clear()
            self._sample()

    def retry_after(self, key: str) -> int:
        """Return whole seconds from 1 to ``MAX_RETRY_AFTER``."""
        self._update_rates()
        rate, pending = self._rates.get(key, 0.0), self._queue.pending_for(key)
        if not rate:
            rate, pending = self._rates.get(_ALL_MODELS, 0.0), self._queue.pending
        return max(1, min(MAX_RETRY_AFTER, math.ceil(pending / rate))) if rate else DEFAULT_RETRY_AFTER

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sample(self) -> None:
        self._timer = None
        self._samples.append((self._now(), self._counts()))
        self._update_rates()
        if self._queue.pending:
            self._timer = asyncio.get_running_loop().call_later(SAMPLE_INTERVAL, self._sample)

    def _update_rates(self) -> None:
        """Compute the rate from the oldest sample until now for every model that completed requests since."""
        if not self._samples:
            return
        (start, before), counts = self._samples[0], self._counts()
        seconds = self._now() - start
        if seconds < SAMPLE_INTERVAL:
            return
        self._rates = {key: rate for key, rate in self._rates.items() if key in counts}
        for key, count in counts.items():
            completed = count - before.get(key, 0)
            if completed > 0:
                self._rates[key] = completed / seconds

    def _counts(self) -> Counts:
        counts = {key: queue.completed for key, queue in self._queue.model_queues()}
        return {**counts, _ALL_MODELS: sum(counts.values())}

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
