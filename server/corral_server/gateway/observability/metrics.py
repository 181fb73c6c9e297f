"""Counters and histograms by Model, and their exposition for Prometheus.

- Labels are bounded: only an existing Model has series, which are removed with it, and ``api`` is a served path.
- A request holds the ModelMetrics of its Model, so a request that ends after its Model was deleted adds no series.
- Gauges are read from queue and directory at each scrape.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from corral_core.base.exposition import Labels, Metric, counter, gauge, histogram
from corral_core.base.metrics import LATENCY_BUCKETS, Histogram
from corral_server.gateway.directory.directory import Directory
from corral_server.gateway.queueing.queue import RequestQueue

CHUNK_BUCKETS: Final[tuple[float, ...]] = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.15,
    0.25,
    0.5,
    1.0,
    2.5,
    10.0,
)
"""Seconds between two chunks: from 1,000 tokens per second to a stream that hangs."""

RETRY_REASONS = ("unreachable", "not_ready", "misdirected")
REJECTION_REASONS = ("queue_full", "model_queue_full", "wait_timeout", "unavailable")
"""Each reason is exposed as 0 from the start, so that ``rate()`` sees its first increase."""

NO_MODEL = ""
"""Label of requests that name no existing Model."""


class ModelMetrics:
    """Metrics of one Model. ``requests`` counts by path and status code, ``retries`` and ``rejected`` by reason."""

    __slots__ = (
        "chunk_interval",
        "duration",
        "first_byte",
        "incomplete_responses",
        "queue_wait",
        "rejected",
        "requests",
        "response_bytes",
        "retries",
        "wake",
    )

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        self.retries = Counter(dict.fromkeys(RETRY_REASONS, 0))
        self.rejected = Counter(dict.fromkeys(REJECTION_REASONS, 0))
        self.response_bytes = self.incomplete_responses = 0
        self.first_byte = Histogram(LATENCY_BUCKETS)
        self.duration = Histogram(LATENCY_BUCKETS)
        self.queue_wait = Histogram(LATENCY_BUCKETS)
        self.wake = Histogram(LATENCY_BUCKETS)
        self.chunk_interval = Histogram(CHUNK_BUCKETS)

    def observe_response(self, first: float, last: float) -> None:
        """Record the first and last byte of a successful response, in seconds from the request.

        One bucket search if both were written together.
        """
        if first == last:
            index = bisect_left(LATENCY_BUCKETS, first)
            for one in (self.first_byte, self.duration):
                one.counts[index] += 1
                one.total += first
        else:
            self.first_byte.observe(first)
            self.duration.observe(last)


class GatewayMetrics:
    """Metrics of all Models. Series exist from the creation of the Model, so that ``rate()`` sees its first request.

    ``unattributed`` holds the metrics of requests without a Model.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._models = {entry.key: ModelMetrics() for entry in directory.entries()}
        self.unattributed = ModelMetrics()
        directory.subscribe(self._changed)

    def for_model(self, key: str) -> ModelMetrics:
        """Return the Model's metrics; ones that are not exposed if the Model does not exist any more."""
        metrics = self._models.get(key)
        if metrics is None:
            metrics = ModelMetrics()
            if self._directory.get(key) is not None:
                self._models[key] = metrics
        return metrics

    def _changed(self, key: str) -> None:
        if self._directory.get(key) is None:
            self._models.pop(key, None)
        elif key not in self._models:
            self._models[key] = ModelMetrics()

    def families(self, queue: RequestQueue) -> Iterator[Metric]:
        """Yield the families. ``queue`` is the dispatcher's queue."""
        yield from self._counters()
        yield from self._histograms()
        yield from self._gauges(queue)

    def _counters(self) -> Iterator[Metric]:
        known = list(self._models.items())
        served = [*known, (NO_MODEL, self.unattributed)]
        yield counter(
            "corral_gateway_requests_total",
            "Completed requests by API path and status code; 499: the client disconnected before the response ended.",
            [
                ({"model": key, "api": api, "code": str(code)}, count)
                for key, metrics in served
                for (api, code), count in list(metrics.requests.items())
            ],
        )
        yield counter(
            "corral_gateway_response_bytes_total",
            "Response body bytes sent to clients.",
            [({"model": key}, metrics.response_bytes) for key, metrics in served],
        )
        yield counter(
            "corral_gateway_incomplete_responses_total",
            "Responses that started with a status below 400 and ended early: the runner failed or the drain timed out.",
            [({"model": key}, metrics.incomplete_responses) for key, metrics in known],
        )
        yield counter(
            "corral_gateway_upstream_retries_total",
            "Requests queued again because no runner started them: unreachable, not_ready (loading, draining) or "
            "misdirected (the address belongs to a runner of another Model).",
            self._by_reason(lambda metrics: metrics.retries),
        )
        yield counter(
            "corral_gateway_rejected_requests_total",
            "Requests rejected by reason: queue_full, model_queue_full, wait_timeout, unavailable.",
            self._by_reason(lambda metrics: metrics.rejected),
        )

    def _histograms(self) -> Iterator[Metric]:
        for name, text, read in _HISTOGRAMS:
            yield histogram(
                name, text, [({"model": key}, read(metrics)) for key, metrics in list(self._models.items())]
            )

    def _gauges(self, queue: RequestQueue) -> Iterator[Metric]:
        entries = [(entry.key, entry) for entry in self._directory.entries()]
        labelled: list[tuple[str, Labels]] = [(key, {"model": key}) for key, _ in entries]
        now = time.time()
        yield gauge(
            "corral_gateway_pending_requests",
            "Requests in the queue.",
            [(labels, queue.pending_for(key)) for key, labels in labelled],
        )
        by_namespace: Counter[str] = Counter()
        for pending in list(queue.usage.pending.values()):
            by_namespace.update(dict(pending))
        yield gauge(
            "corral_gateway_namespace_pending_requests",
            "Requests in the queue by the namespace that they count for.",
            [({"namespace": namespace}, number) for namespace, number in sorted(by_namespace.items())],
        )
        yield gauge(
            "corral_gateway_oldest_pending_request_seconds",
            "Age of the oldest request in the queue.",
            [(labels, max(0.0, now - (queue.oldest_arrival(key) or now))) for key, labels in labelled],
        )
        yield gauge(
            "corral_gateway_in_flight_requests",
            "Requests being served by runners.",
            [(labels, queue.slots_in_use(key)) for key, labels in labelled],
        )
        slots = [({"model": key}, sum(endpoint.slots for endpoint in entry.endpoints)) for key, entry in entries]
        yield gauge("corral_gateway_slots", "Slots of the Model's ready runners.", slots)
        runners = [({"model": key}, len(entry.endpoints)) for key, entry in entries]
        yield gauge("corral_gateway_ready_runners", "Ready runners.", runners)
        yield gauge(
            "corral_gateway_queue_limit",
            "Maximum number of queued requests over all gateway replicas.",
            [({}, queue.limit)],
        )
        yield gauge(
            "corral_gateway_synced",
            "1 after the gateway has listed all Models.",
            [({}, self._directory.synced())],
        )

    def _by_reason(self, counts: Callable[[ModelMetrics], Counter[str]]) -> Iterator[tuple[Labels, float]]:
        for key, metrics in list(self._models.items()):
            for reason, count in list(counts(metrics).items()):
                yield {"model": key, "reason": reason}, count


_HISTOGRAMS: tuple[tuple[str, str, Callable[[ModelMetrics], Histogram]], ...] = (
    (
        "corral_gateway_time_to_first_byte_seconds",
        "Time from the complete request to the first body byte of a successful response, queueing included.",
        lambda metrics: metrics.first_byte,
    ),
    (
        "corral_gateway_request_duration_seconds",
        "Time from the complete request to the last byte of a successful response.",
        lambda metrics: metrics.duration,
    ),
    (
        "corral_gateway_queue_wait_seconds",
        "Time in the queue; 0 for a request that got a slot immediately.",
        lambda metrics: metrics.queue_wait,
    ),
    (
        "corral_gateway_wake_seconds",
        "Queue time of requests that arrived while their Model had no ready runner (cold start).",
        lambda metrics: metrics.wake,
    ),
    (
        "corral_gateway_chunk_interval_seconds",
        "Time between two consecutive chunks of a streamed response.",
        lambda metrics: metrics.chunk_interval,
    ),
)
