"""Request queue with one fair order per model and a limit over all models.

The queue is synchronous and does no I/O: callers wait and connect outside of it. Invariants after each call:

- Requests of one model get slots in the order of arrival within each namespace, and namespaces take turns
  (``fair_order``). A request that is queued again because its runner did not start it returns to its old position,
  ahead of all later arrivals of its namespace. The queues of two models are independent.
- An endpoint never has more requests than its capacity (its slots less those that peers may use), except when the
  capacity drops below the number of requests that it already has.
- A request that asks for a longer context than the runners have (``context_length``) is held, takes no slot and delays
  no other request, until ``update_context`` says that the runners have it. Then it is at its position by arrival.
- A half-open endpoint (a connection to it failed, or a response of it ended early) gets one trial request at a time
  until it is reachable again, and only if no other endpoint has a free slot. The other requests do not wait for a
  machine that may be lost.
- While a model has pending requests, none of its available endpoints has a free slot.
- ``admission`` decides whether a request may be queued. An admitted request is never rejected because the queue is
  full: requests that are queued again may exceed the limit by the number that was in flight.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping

from corral_server.gateway.directory.directory import Endpoint
from corral_server.gateway.queueing.admission import GatewayUsage, NoPeerPending, PeerPending, QueueAdmission, QueueFull
from corral_server.gateway.queueing.fair_order import NO_WEIGHTS
from corral_server.gateway.queueing.model_queue import EndpointState, ModelQueue, PendingRequest

EndpointCapacity = Callable[[str, Endpoint], int]
"""Number of slots of an endpoint that this gateway may use for a model."""


def all_slots(key: str, endpoint: Endpoint) -> int:
    """Return the capacity of an endpoint that no other gateway uses."""
    return endpoint.slots


class RequestQueue:
    """The queues of all models.

    The owner of a request calls ``finish`` when it has ended for any reason; further calls do nothing. ``weights`` are
    those of namespaces whose weight is not 1.
    """

    def __init__(
        self,
        limit: int,
        *,
        peers: PeerPending | None = None,
        capacity: EndpointCapacity = all_slots,
        weights: Mapping[str, float] = NO_WEIGHTS,
    ) -> None:
        self.limit = limit
        self.usage = GatewayUsage()
        self._weights = weights
        self._admission = QueueAdmission(limit, self.usage, peers or NoPeerPending(), weights=weights)
        self._capacity = capacity
        self._models: dict[str, ModelQueue] = {}
        self._numbers = itertools.count()

    @property
    def pending(self) -> int:
        """Number of pending requests of all models."""
        return self.usage.pending_total

    def pending_for(self, key: str) -> int:
        queue = self._models.get(key)
        return queue.size if queue else 0

    def wanted_context(self, key: str) -> int:
        """Return the longest context that pending requests of the model ask for, 0 if the runners' suffices."""
        queue = self._models.get(key)
        return max(queue.contexts, default=0) if queue else 0

    def oldest_arrival(self, key: str) -> float | None:
        """Return the arrival of the model's first pending request in Unix seconds."""
        queue = self._models.get(key)
        oldest = (queue.pending.oldest(), next(iter(queue.held), None)) if queue is not None else ()
        return min((request.arrived_at for request in oldest if request is not None), default=None)

    def slots_in_use(self, key: str) -> int:
        queue = self._models.get(key)
        return sum(state.in_use for state in queue.endpoints.values()) if queue else 0

    def model_queues(self) -> Iterator[tuple[str, ModelQueue]]:
        yield from self._models.items()

    def submit(
        self,
        key: str,
        endpoints: Iterable[Endpoint],
        *,
        arrived_at: float,
        namespace: str = "",
        max_pending: int | None = None,
        context_length: int = 0,
    ) -> PendingRequest:
        """Assign a slot if one is free and no request is pending before it; otherwise queue the request.

        ``context_length`` is the longer context that the request waits for, 0 if that of the runners suffices.
        Raises QueueFull, ModelQueueFull.
        """
        if not context_length:
            request = self._try_acquire(key, endpoints, arrived_at=arrived_at, namespace=namespace)
            if request is not None:
                return request
        queue = self._model_queue(key)
        request = PendingRequest(key, next(self._numbers), arrived_at=arrived_at, namespace=namespace)
        try:
            self._admission.check(key, namespace=namespace, max_pending=max_pending)
        except QueueFull:
            self._drop_if_empty(key, queue)
            raise
        request.context_length = context_length
        self._start_waiting(queue, request)
        if context_length:
            queue.held[request] = None
        else:
            queue.pending.append(request)
        return request

    def update_context(self, key: str, length: int, longest: int) -> None:
        """Queue the held requests for which a context of ``length`` is enough; none gets more than ``longest``."""
        queue = self._models.get(key)
        for request in list(queue.held) if queue else ():
            if queue is not None and min(request.context_length, longest) <= length:
                del queue.held[request]
                queue.pending.reinsert(request)
        if queue is not None:
            self._assign(queue)

    def finish(self, request: PendingRequest) -> None:
        """Remove the request from the queue, or give its slot to the next one."""
        queue = self._models.get(request.key)
        if queue is None:
            return
        if request.queued:
            queue.remove(request)
            self._stop_waiting(queue, request)
        elif request.assigned is not None:
            queue.completed += 1
            self._release(queue, request)
            if queue.pending.size:
                self._assign(queue)
        if not queue.endpoints:
            self._drop_if_empty(request.key, queue)

    def requeue(self, request: PendingRequest) -> None:
        """Release the slot of a request that its runner did not start, and queue it again at its old position.

        The caller starts the endpoint's backoff first; otherwise the request may be assigned to it again immediately.
        """
        queue = self._models[request.key]
        self._release(queue, request)
        self._start_waiting(queue, request)
        queue.pending.reinsert(request)
        self._assign(queue)

    def update_endpoints(self, key: str, endpoints: Iterable[Endpoint]) -> None:
        """Replace the endpoints of a model. Requests that run on a removed endpoint keep running.

        A new or changed endpoint is available immediately, whatever the state of its circuit breaker was.
        """
        queue = self._model_queue(key)
        queue.listed_endpoints = endpoints
        for state in queue.endpoints.values():
            state.listed = False
        for endpoint in endpoints:
            state = queue.endpoints.get(endpoint.id) or queue.endpoints.setdefault(endpoint.id, EndpointState(endpoint))
            if state.endpoint != endpoint:
                state.reset(endpoint)
            state.listed = True
            state.capacity = self._capacity(key, endpoint)
        for removed in [state for state in queue.endpoints.values() if not state.listed and not state.running]:
            del queue.endpoints[removed.endpoint.id]
        self._assign(queue)
        self._drop_if_empty(key, queue)

    def confirm_reachable(self, request: PendingRequest) -> bool:
        """Close the circuit of the request's endpoint. Return true if it was half-open."""
        state = request.assigned
        if state is None or not state.half_open:
            return False
        state.close_circuit()
        self._assign(self._models[request.key])
        return True

    def end_backoff(self, key: str, state: EndpointState) -> None:
        state.backing_off = False
        queue = self._models.get(key)
        if queue is not None:
            self._assign(queue)

    def refresh_capacity(self, key: str) -> None:
        """Compute the capacity of the model's endpoints again: the usage of other gateways has changed."""
        queue = self._models.get(key)
        if queue is not None:
            for state in queue.endpoints.values():
                state.capacity = self._capacity(key, state.endpoint)
            self._assign(queue)

    def reject(self, request: PendingRequest, error: Exception) -> None:
        """End the wait of a pending request with an error. Does nothing if it is not pending."""
        queue = self._models.get(request.key)
        if queue is not None and request.queued:
            queue.remove(request)
            self._stop_waiting(queue, request)
            request.error = error
            _notify(request)
            self._drop_if_empty(request.key, queue)

    def interrupt(self, key: str, reason: str) -> None:
        """End the responses of all requests of the model that a runner has begun."""
        queue = self._models.get(key)
        for state in list(queue.endpoints.values()) if queue else ():
            for request in list(state.running):
                if request.interrupt is not None:
                    request.interrupt(reason)

    def reject_all(self, key: str, error: Exception) -> None:
        """End the wait of all pending requests of the model with an error."""
        queue = self._models.get(key)
        if queue is None:
            return
        for request in (*queue.held, *queue.pending):
            self._stop_waiting(queue, request)
            request.error = error
            _notify(request)
        queue.pending.clear()
        queue.held.clear()
        self._drop_if_empty(key, queue)

    def _model_queue(self, key: str) -> ModelQueue:
        queue = self._models.get(key)
        if queue is None:
            queue = self._models[key] = ModelQueue(self._weights)
        return queue

    def _try_acquire(
        self, key: str, endpoints: Iterable[Endpoint], *, arrived_at: float, namespace: str
    ) -> PendingRequest | None:
        """Assign a slot, or return None if the request would be queued."""
        queue = self._models.get(key)
        if queue is None or queue.listed_endpoints is not endpoints:
            self.update_endpoints(key, endpoints)
            queue = self._models.get(key)
        state = None if queue is None or queue.pending.size else queue.best_endpoint()
        if state is None:
            return None
        request = PendingRequest(key, next(self._numbers), arrived_at=arrived_at, namespace=namespace)
        state.acquire(request)
        return request

    def _assign(self, queue: ModelQueue) -> None:
        while queue.pending.size:
            state = queue.best_endpoint()
            if state is None:
                return
            request = queue.pending.pop(queue.running)
            self._stop_waiting(queue, request)
            state.acquire(request)
            _notify(request)

    def _release(self, queue: ModelQueue, request: PendingRequest) -> None:
        state = request.assigned
        if state is None:
            return
        state.release(request)
        if not state.listed and not state.running:
            queue.endpoints.pop(state.endpoint.id, None)

    def _start_waiting(self, queue: ModelQueue, request: PendingRequest) -> None:
        request.queued = True
        self.usage.add(request.key, 1, request.namespace)
        if request.context_length:
            queue.contexts[request.context_length] += 1

    def _stop_waiting(self, queue: ModelQueue, request: PendingRequest) -> None:
        request.queued = False
        self.usage.add(request.key, -1, request.namespace)
        if request.context_length:
            queue.contexts[request.context_length] -= 1
            if not queue.contexts[request.context_length]:
                del queue.contexts[request.context_length]

    def _drop_if_empty(self, key: str, queue: ModelQueue) -> None:
        if not queue.size and not queue.endpoints:
            self._models.pop(key, None)


def _notify(request: PendingRequest) -> None:
    if request.on_resolved is not None:
        request.on_resolved()
