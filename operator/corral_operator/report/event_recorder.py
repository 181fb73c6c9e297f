"""Event recorder: writes Events of Models, one object for equal ones, at a bounded rate.

- Equal Events of a Model, by reason and message, are one object in the API server, with a growing ``count`` and
  ``lastTimestamp``. Its name follows from them, so a restarted operator updates the same object, counting from one.
- A Model has a token bucket: ``BURST`` Events, and one more every ``REFILL`` seconds. What exceeds it is dropped, as
  client-go's event correlator does (https://pkg.go.dev/k8s.io/client-go/tools/record#EventCorrelator).
- An Event that cannot be written is dropped: it repeats what status and log say.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from corral_core.base.timestamps import format_time
from corral_core.model.model import API_VERSION, KIND
from corral_kube.client import KubeClient
from corral_kube.errors import KubeError
from corral_operator import logs
from corral_operator.config import FIELD_MANAGER
from corral_operator.observe import api_paths
from corral_operator.observe.objects import ModelObject
from corral_operator.report.events import ModelEvent

BURST = 25
"""Events of one Model that are written without a pause."""

REFILL = 20.0
"""Seconds in which a Model may have one more Event."""

REMEMBERED = 64
"""Events of one Model whose count and first time are kept."""

MAX_MESSAGE = 1024
"""Characters of a message; the API server accepts no more in an Event."""


@dataclass(slots=True)
class _Series:
    """``tokens`` is as of ``refilled``; ``seen`` has count and first time (Unix seconds) by the name of the Event."""

    refilled: float
    tokens: float = BURST
    seen: dict[str, tuple[int, float]] = field(default_factory=dict)

    def take(self, now: float) -> bool:
        """Take a token; return False without one."""
        self.tokens = min(BURST, self.tokens + max(0.0, now - self.refilled) / REFILL)
        self.refilled = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def count(self, name: str, now: float) -> tuple[int, float]:
        """Return how often the Event happened, this time included, and when it did first."""
        count, first = self.seen.pop(name, (0, now))
        self.seen[name] = count + 1, first
        while len(self.seen) > REMEMBERED:
            del self.seen[next(iter(self.seen))]
        return self.seen[name]


class EventRecorder:
    def __init__(self, kube: KubeClient, *, clock: Callable[[], float] = time.time) -> None:
        self._kube = kube
        self._clock = clock
        self._series: dict[str, _Series] = {}

    async def record(self, item: ModelObject, event: ModelEvent) -> None:
        """Write the Event, unless the Model has had too many; raises nothing."""
        now = self._clock()
        series = self._series.setdefault(item.meta.key, _Series(now))
        if not series.take(now):
            logs.event("event_dropped", level=logging.DEBUG, model=item.meta.key, reason=event.reason)
            return
        body = _manifest(item, event, series, now)
        try:
            await self._kube.apply(api_paths.events(item.namespace, _name(item, event)), body)
        except KubeError as error:
            logs.event("event_write_failed", level=logging.DEBUG, model=item.meta.key, error=str(error))

    def forget(self, model: str) -> None:
        """Drop what is kept about a deleted Model."""
        self._series.pop(model, None)


def _name(item: ModelObject, event: ModelEvent) -> str:
    identity = f"{item.meta.uid}\n{event.reason}\n{event.message}"
    return f"{item.name}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def _manifest(item: ModelObject, event: ModelEvent, series: _Series, now: float) -> dict[str, object]:
    name = _name(item, event)
    count, first = series.count(name, now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": item.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": item.name,
            "namespace": item.namespace,
            "uid": item.meta.uid,
        },
        "type": "Warning" if event.warning else "Normal",
        "reason": event.reason,
        "message": event.message[:MAX_MESSAGE],
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "firstTimestamp": format_time(first),
        "lastTimestamp": format_time(now),
        "count": count,
    }
