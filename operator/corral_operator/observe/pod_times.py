"""Times of pods on this process's clock: when it saw a pod first, when it saw it become ready, when it saw it deleted.

The times that an object has are those of other machines: the kubelet's for ``startTime`` and the conditions, the API
server's for the deletion. They are not compared with the present time of this machine; what was observed here is. To a
restarted operator, everything seems to have happened at its start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from corral_operator.observe.objects import PodObject


@dataclass(slots=True)
class ObservedTimes:
    """Times of one pod; ``ready_since`` and ``deleted_at`` are None while it is not ready or not deleted."""

    seen_at: float
    ready_since: float | None = None
    deleted_at: float | None = None


class PodTimes:
    """Times by the uid of the pod, in seconds of ``clock``."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pods: dict[str, ObservedTimes] = {}

    def of(self, pod: PodObject) -> ObservedTimes:
        """Return the times of a pod; one that was not observed was seen first now."""
        return self._pods.get(pod.meta.uid) or _advanced(ObservedTimes(self._clock()), pod, self._clock())

    def deletion_deadline(self, pod: PodObject) -> float | None:
        """Return when the kubelet must have ended the pod; None if it is not deleted."""
        deleted_at = self.of(pod).deleted_at
        return None if deleted_at is None else deleted_at + (pod.deletion_grace or 0)

    def update(self, before: PodObject | None, after: PodObject | None) -> None:
        """Record a change; None means that the pod does not exist."""
        if before is not None and (after is None or after.meta.uid != before.meta.uid):
            self._pods.pop(before.meta.uid, None)
        if after is not None:
            now = self._clock()
            times = self._pods.setdefault(after.meta.uid, ObservedTimes(now))
            _advanced(times, after, now)


def _advanced(times: ObservedTimes, pod: PodObject, now: float) -> ObservedTimes:
    """Record the state of the pod at ``now``."""
    if not pod.ready:
        times.ready_since = None
    elif times.ready_since is None:
        times.ready_since = now
    if pod.meta.deleted and times.deleted_at is None:
        times.deleted_at = now
    return times
