"""Dispatcher: connects the request queue with the directory, the clock and the metrics.

- An endpoint that cannot be reached, that ends a response early, or that reports that it is loading or draining,
  gets no requests for a backoff time that doubles with each failure. Its requests wait at their old positions; after
  the backoff one of them is sent as a trial. A change of the endpoint ends the backoff immediately.
- A request that asks for a longer context than the runners of its Model have, where the Model's policy is Grow, waits
  until they have it, or until the operator says that it cannot be: it then gets the longest that there is.
- When the runners of a Model are ended after the eviction timeout, the running requests end with an error that says so.
- A request waits at most for the Model's ``queue.maxWait``, or the installation's default.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from corral_server.gateway.directory.directory import Directory, Endpoint, ModelEntry
from corral_server.gateway.queueing.admission import ModelQueueFull, PeerPending, QueueFull
from corral_server.gateway.queueing.demand import DemandReporter
from corral_server.gateway.queueing.fair_order import NO_WEIGHTS
from corral_server.gateway.queueing.limits import NO_LIMITS, QueueLimits
from corral_server.gateway.queueing.model_queue import EndpointState, PendingRequest
from corral_server.gateway.queueing.queue import EndpointCapacity, RequestQueue, all_slots
from corral_server.gateway.queueing.rejections import model_queue_full, model_unavailable, queue_full, wait_timed_out
from corral_server.gateway.queueing.retry_after import RetryAfterEstimator

MIN_BACKOFF, MAX_BACKOFF = 0.05, 1.0
"""Seconds of backoff after the first failure of an endpoint, and at most."""
MIN_BACKOFF_AFTER_FAILURE = 0.25
"""Minimum seconds of backoff after a response ended early: a killed process takes a moment to disappear."""


EVICTED = (
    "the model was unloaded because another model needed the capacity and the request did not finish in time "
    "(CORRAL_EVICTION_TIMEOUT), please try again"
)


class ModelDeleted(Exception):
    """The Model was deleted while requests for it were pending."""


class QueueCounters(Protocol):
    """Counters of one model, by reason."""

    rejected: Counter[str]
    retries: Counter[str]


class RequestQueueMetrics(Protocol):
    def for_model(self, key: str) -> QueueCounters: ...


class Dispatcher:
    """Owner of the request queue. All methods are called on the event loop; only ``wait_for_slot`` waits."""

    def __init__(
        self,
        directory: Directory,
        metrics: RequestQueueMetrics,
        *,
        limit: int,
        peers: PeerPending | None = None,
        capacity: EndpointCapacity = all_slots,
        limits: QueueLimits = NO_LIMITS,
        weights: Mapping[str, float] = NO_WEIGHTS,
    ) -> None:
        self._directory = directory
        self._limits = limits
        self._metrics = metrics
        self._queue = RequestQueue(limit, peers=peers, capacity=capacity, weights=weights)
        self._retry_after = RetryAfterEstimator(self._queue)
        self._demand = DemandReporter(directory.report_demand, self._demand_level)
        self._contexts: dict[str, int] = {}
        self._backoff_timers: dict[EndpointState, asyncio.TimerHandle] = {}
        directory.subscribe(self._model_changed)

    @property
    def pending(self) -> int:
        return self._queue.pending

    @property
    def queue(self) -> RequestQueue:
        return self._queue

    def submit(self, entry: ModelEntry, namespace: str = "", *, num_ctx: int = 0) -> PendingRequest:
        """Assign a slot or queue the request.

        ``namespace`` is the one that the API key is for; empty: the namespace of the Model. ``num_ctx`` is the context
        length that the request asks for, 0 if for none.
        Raises ApiError: 503 if the queue is full, or the reason why the Model is unavailable.
        """
        if entry.unavailable_reason is not None:
            self._metrics.for_model(entry.key).rejected["unavailable"] += 1
            raise model_unavailable(entry)
        key, max_pending = entry.key, self._limits.max_pending_for(entry)
        wanted = min(num_ctx, entry.max_context_length)
        try:
            request = self._queue.submit(
                key,
                entry.endpoints,
                arrived_at=time.time(),
                namespace=namespace or entry.model.namespace,
                max_pending=max_pending,
                context_length=wanted if wanted > entry.context_length else 0,
            )
        except ModelQueueFull:
            self._metrics.for_model(key).rejected["model_queue_full"] += 1
            raise model_queue_full(entry, max_pending or 0, self._retry_after.retry_after(key)) from None
        except QueueFull:
            self._metrics.for_model(key).rejected["queue_full"] += 1
            raise queue_full(self._retry_after.retry_after(key)) from None
        if request.queued:
            request.wake = not entry.endpoints
            self._queued(request)
        return request

    async def wait_for_slot(self, request: PendingRequest) -> Endpoint:
        """Wait until the request has a slot.

        Raises ModelDeleted, or ApiError if the Model becomes unavailable or the wait times out.
        """
        if request.assigned is None and request.error is None:
            resolved = asyncio.get_running_loop().create_future()
            request.on_resolved = functools.partial(_resolve, resolved)
            timer = self._start_wait_timer(request)
            request.wait_started = time.perf_counter()
            try:
                await resolved
            finally:
                request.end_wait(time.perf_counter())
                request.on_resolved = None
                if timer is not None:
                    timer.cancel()
        if request.error is not None:
            raise request.error
        assert request.assigned is not None
        return request.assigned.endpoint

    def finish(self, request: PendingRequest) -> None:
        """End the request in any state. Idempotent."""
        self._queue.finish(request)
        if request.key in self._demand:
            self._update_demand(request.key)

    def confirm_reachable(self, request: PendingRequest) -> None:
        """Record that a connection to the endpoint was made, whatever the runner does with the request."""
        if self._queue.confirm_reachable(request) and request.key in self._demand:
            self._update_demand(request.key)

    def record_success(self, request: PendingRequest) -> None:
        """Record that the endpoint started a response."""
        state = request.assigned
        if state is not None:
            state.failures = 0
            if state.half_open:
                self.confirm_reachable(request)

    def record_failure(self, request: PendingRequest) -> None:
        """Record that the endpoint did not finish its response. It may be about to exit, with all of its requests."""
        if request.assigned is not None:
            request.assigned.half_open = True
            self._back_off(request.key, request.assigned, minimum=MIN_BACKOFF_AFTER_FAILURE)

    def requeue(self, request: PendingRequest, *, unreachable: bool, misdirected: bool = False) -> None:
        """Queue the request again at its old position and start the endpoint's backoff: the runner did not start it.

        ``unreachable``: no connection could be used, so the endpoint becomes half-open. ``misdirected``: the address
        belongs to a runner of another Model by now.
        """
        if request.assigned is None:
            return
        reason = "misdirected" if misdirected else "unreachable" if unreachable else "not_ready"
        self._metrics.for_model(request.key).retries[reason] += 1
        request.assigned.half_open |= unreachable
        self._back_off(request.key, request.assigned)
        self._queue.requeue(request)
        self._queued(request)
        entry = self._directory.get(request.key)
        if entry is None or entry.unavailable_reason is not None:
            self._model_changed(request.key)

    def refresh_capacity(self, key: str) -> None:
        """Apply a change in the pending requests of the peers or in their usage of the model's runners."""
        self._queue.refresh_capacity(key)
        if key in self._demand:
            self._update_demand(key)

    def shutdown(self) -> None:
        """Cancel the timers and withdraw the demand."""
        for timer in self._backoff_timers.values():
            timer.cancel()
        self._backoff_timers.clear()
        self._demand.close()
        self._retry_after.close()

    def _queued(self, request: PendingRequest) -> None:
        if not request.queued_at:
            request.queued_at = asyncio.get_running_loop().time()
        self._retry_after.start_sampling()
        self._update_demand(request.key)

    def _start_wait_timer(self, request: PendingRequest) -> asyncio.TimerHandle | None:
        entry = self._directory.get(request.key)
        limit = self._limits.max_wait_for(entry) if entry is not None else None
        if entry is None or limit is None:
            return None
        deadline = request.queued_at + limit
        return asyncio.get_running_loop().call_at(deadline, self._wait_timed_out, request, entry, limit)

    def _wait_timed_out(self, request: PendingRequest, entry: ModelEntry, limit: float) -> None:
        if request.queued:
            self._metrics.for_model(request.key).rejected["wait_timeout"] += 1
            retry_after = self._retry_after.retry_after(request.key)
            now = self._directory.get(request.key) or entry
            self._queue.reject(request, wait_timed_out(now, limit, retry_after))

    def _back_off(self, key: str, state: EndpointState, *, minimum: float = MIN_BACKOFF) -> None:
        if state.backing_off:
            return
        state.backing_off = True
        seconds = max(minimum, min(MAX_BACKOFF, MIN_BACKOFF * 2.0 ** min(state.failures, 10)))
        state.failures += 1
        previous = self._backoff_timers.pop(state, None)
        if previous is not None:
            previous.cancel()
        self._backoff_timers[state] = asyncio.get_running_loop().call_later(seconds, self._end_backoff, key, state)

    def _end_backoff(self, key: str, state: EndpointState) -> None:
        self._backoff_timers.pop(state, None)
        self._queue.end_backoff(key, state)
        if key in self._demand:
            self._update_demand(key)

    def _model_changed(self, key: str) -> None:
        entry = self._directory.get(key)
        if entry is None:
            self._queue.reject_all(key, ModelDeleted())
            self._queue.update_endpoints(key, ())
        elif entry.unavailable_reason is not None:
            self._queue.reject_all(key, model_unavailable(entry))
            self._queue.update_endpoints(key, entry.endpoints)
        else:
            self._queue.update_endpoints(key, entry.endpoints)
            self._queue.update_context(key, entry.context_length, entry.max_context_length)
        if entry is not None and entry.interrupted:
            self._queue.interrupt(key, EVICTED)
        if key in self._demand:
            self._update_demand(key)

    def _update_demand(self, key: str) -> None:
        self._demand.update(key)
        wanted = self._queue.wanted_context(key)
        if wanted != self._contexts.get(key, 0):
            self._contexts[key] = wanted
            if not wanted:
                del self._contexts[key]
            self._directory.want_context(key, wanted)

    def _demand_level(self, key: str) -> tuple[int, float | None]:
        return self._queue.pending_for(key), self._queue.oldest_arrival(key)


def _resolve(resolved: asyncio.Future[None]) -> None:
    if not resolved.done():
        resolved.set_result(None)
