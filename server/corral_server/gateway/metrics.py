"""What the gateway counts of each Model, and how it is told to Prometheus.

Labels are bounded: only a Model that exists has series, which go when it does, and paths are those that are served. A
request holds its Model's meter from the moment it is known, so one that ends after its Model is gone brings nothing
back. What waits, runs and could run is read from queue and directory at the scrape.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from corral_core.metrics import LATENCY, Family, Histogram, Labels, counter, gauge, histogram
from corral_server.gateway.directory import Directory
from corral_server.gateway.queue import Queue

CHUNK: Final[tuple[float, ...]] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Seconds from one chunk to the next: a stream of 1000 tokens a second to one that hangs."""

RETRIED = ("unreachable", "not_ready")
REFUSED = ("queue_full", "line_full", "waited_too_long", "unavailable")
"""Reasons. Each is told from the start as 0, or the first time would be no change that anybody could see."""

NO_MODEL = ""
"""The label of requests that named no Model that exists."""


class Meter:
    """The numbers of one Model. ``requests`` counts by path and code, ``retries`` and ``refused`` by reason."""

    __slots__ = (
        "broken",
        "bytes",
        "chunk",
        "first_byte",
        "queue_wait",
        "refused",
        "requests",
        "retries",
        "seconds",
        "wake",
    )

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        self.retries = Counter(dict.fromkeys(RETRIED, 0))
        self.refused = Counter(dict.fromkeys(REFUSED, 0))
        self.bytes = self.broken = 0
        self.first_byte = Histogram(LATENCY)
        self.seconds = Histogram(LATENCY)
        self.queue_wait = Histogram(LATENCY)
        self.wake = Histogram(LATENCY)
        self.chunk = Histogram(CHUNK)

    def answered(self, first: float, last: float) -> None:
        """A good answer's first and last byte, in seconds from the request; one look where they went together."""
        if first == last:
            index = bisect_left(LATENCY, first)
            for one in (self.first_byte, self.seconds):
                one.counts[index] += 1
                one.total += first
        else:
            self.first_byte.observe(first)
            self.seconds.observe(last)


class Meters:
    """All of them, each from the moment at which its Model is known: what begins at 1 never seems to have changed.

    ``nobody`` counts what is not about a Model.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._meters = {entry.key: Meter() for entry in directory.entries()}
        self.nobody = Meter()
        directory.subscribe(self._changed)

    def of(self, key: str) -> Meter:
        """The meter of this Model; one that nobody reads when there is no such Model any more."""
        meter = self._meters.get(key)
        if meter is None:
            meter = Meter()
            if self._directory.get(key) is not None:
                self._meters[key] = meter
        return meter

    def _changed(self, key: str) -> None:
        if self._directory.get(key) is None:
            self._meters.pop(key, None)
        elif key not in self._meters:
            self._meters[key] = Meter()

    def families(self, queue: Queue) -> Iterator[Family]:
        """See the texts. ``queue`` is that of the dispatcher."""
        yield from self._counters()
        yield from self._histograms()
        yield from self._levels(queue)

    def _counters(self) -> Iterator[Family]:
        known = list(self._meters.items())
        served = [*known, (NO_MODEL, self.nobody)]
        yield counter(
            "corral_gateway_requests_total",
            "Requests that ended; code 499: the client left first.",
            [
                ({"model": key, "api": api, "code": str(code)}, count)
                for key, meter in served
                for (api, code), count in list(meter.requests.items())
            ],
        )
        yield counter(
            "corral_gateway_response_bytes_total",
            "Bytes of bodies that were sent to clients.",
            [({"model": key}, meter.bytes) for key, meter in served],
        )
        yield counter(
            "corral_gateway_broken_answers_total",
            "Answers that had begun with a good code and ended too early: the runner broke off, or the drain was over.",
            [({"model": key}, meter.broken) for key, meter in known],
        )
        yield counter(
            "corral_gateway_upstream_retries_total",
            "Requests that no runner began and that waited again: unreachable, or not_ready (loading, draining).",
            self._by_reason(lambda meter: meter.retries),
        )
        yield counter(
            "corral_gateway_refused_total",
            "Requests that were not served: queue_full, line_full, waited_too_long, unavailable.",
            self._by_reason(lambda meter: meter.refused),
        )

    def _histograms(self) -> Iterator[Family]:
        for name, text, read in _HISTOGRAMS:
            yield histogram(name, text, [({"model": key}, read(meter)) for key, meter in self._meters.items()])

    def _levels(self, queue: Queue) -> Iterator[Family]:
        entries = [(entry.key, entry) for entry in self._directory.entries()]
        labelled: list[tuple[str, Labels]] = [(key, {"model": key}) for key, _ in entries]
        now = time.time()
        yield gauge(
            "corral_gateway_waiting", "Requests that wait.", [(to, queue.waiting_for(key)) for key, to in labelled]
        )
        yield gauge(
            "corral_gateway_oldest_waiting_seconds",
            "For how long the oldest of those that wait has been here.",
            [(to, max(0.0, now - (queue.oldest(key) or now))) for key, to in labelled],
        )
        yield gauge(
            "corral_gateway_in_flight", "Requests at runners.", [(to, queue.in_use(key)) for key, to in labelled]
        )
        slots = [({"model": key}, sum(one.slots for one in entry.endpoints)) for key, entry in entries]
        yield gauge("corral_gateway_slots", "Requests that the Model's ready runners serve at once.", slots)
        runners = [({"model": key}, len(entry.endpoints)) for key, entry in entries]
        yield gauge("corral_gateway_runners", "Runners that are ready.", runners)
        yield gauge(
            "corral_gateway_queue_limit",
            "Requests that may wait in all gateways together.",
            [({}, queue.limit)],
        )
        yield gauge(
            "corral_gateway_settled",
            "Whether all Models have been listed since the gateway started.",
            [({}, self._directory.settled())],
        )

    def _by_reason(self, counts: Callable[[Meter], Counter[str]]) -> Iterator[tuple[Labels, float]]:
        for key, meter in self._meters.items():
            for reason, count in counts(meter).items():
                yield {"model": key, "reason": reason}, count


_HISTOGRAMS: tuple[tuple[str, str, Callable[[Meter], Histogram]], ...] = (
    (
        "corral_gateway_time_to_first_byte_seconds",
        "From the whole request to the first byte of a good answer's body, waiting included.",
        lambda meter: meter.first_byte,
    ),
    (
        "corral_gateway_request_seconds",
        "From the whole request to the last byte of a good answer.",
        lambda meter: meter.seconds,
    ),
    (
        "corral_gateway_queue_wait_seconds",
        "How long requests waited for a slot; those that got one at once count as 0.",
        lambda meter: meter.queue_wait,
    ),
    (
        "corral_gateway_wake_seconds",
        "How long those waited that came when their Model had no ready runner.",
        lambda meter: meter.wake,
    ),
    (
        "corral_gateway_time_per_chunk_seconds",
        "From one piece of a stream to the next as they are written to the client.",
        lambda meter: meter.chunk,
    ),
)
