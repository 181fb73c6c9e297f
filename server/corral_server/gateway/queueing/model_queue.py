"""The queue of one model: its pending requests, its endpoints and their state. ``queue`` has the rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from corral_server.gateway.directory.directory import Endpoint
from corral_server.gateway.queueing.fair_order import FairOrder


class EndpointState:
    """State of one endpoint, with a circuit breaker.

    ``backing_off``: no request is sent to it (open). ``half_open``: only one request, the ``trial``, is sent to it
    until it is reachable. ``failures`` counts the consecutive failures. ``listed`` is false after it left the
    directory. ``running`` are the requests that hold its slots.
    """

    __slots__ = ("backing_off", "capacity", "endpoint", "failures", "half_open", "listed", "running", "trial")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.capacity = 0
        self.listed = True
        self.backing_off = False
        self.failures = 0
        self.half_open = False
        self.trial: PendingRequest | None = None
        self.running: set[PendingRequest] = set()

    @property
    def in_use(self) -> int:
        return len(self.running)

    @property
    def free_slots(self) -> int:
        if not self.listed or self.backing_off:
            return 0
        free = self.capacity - len(self.running)
        return min(free, 0 if self.trial else 1) if self.half_open else free

    def acquire(self, request: PendingRequest) -> None:
        self.running.add(request)
        request.assigned = self
        if self.half_open:
            self.trial = request

    def release(self, request: PendingRequest) -> None:
        self.running.discard(request)
        request.assigned = None
        if self.trial is request:
            self.trial = None

    def reset(self, endpoint: Endpoint) -> None:
        """Close the circuit breaker: the endpoint has changed."""
        self.endpoint, self.backing_off, self.failures = endpoint, False, 0
        self.half_open, self.trial = False, None

    def close_circuit(self) -> None:
        """Make all slots available: the endpoint is reachable."""
        self.half_open, self.trial = False, None


class PendingRequest:
    """A request in the queue, or one that holds a slot.

    ``assigned`` is the endpoint whose slot it holds, ``error`` the reason why it will not get one. ``on_resolved`` is
    called when either is set. ``queued`` is true while it is in the queue. ``interrupt`` ends the response of a request
    that a runner has begun, with a reason. ``namespace`` is the one that fairness counts it for.

    Times: ``arrived_at`` in Unix seconds; ``queued_at`` when it was queued first, on the event loop's clock;
    ``queue_seconds`` is the time in the queue until ``wait_started`` (``perf_counter``, 0 while it is not waiting).
    ``wake`` is true if the model had no ready runner when the request was queued. ``context_length`` is the context in
    tokens that the request asks for, 0 if that of the runners suffices.
    """

    __slots__ = (
        "arrived_at",
        "assigned",
        "context_length",
        "error",
        "interrupt",
        "key",
        "namespace",
        "number",
        "on_resolved",
        "queue_seconds",
        "queued",
        "queued_at",
        "wait_started",
        "wake",
    )

    def __init__(self, key: str, number: int, *, arrived_at: float, namespace: str = "") -> None:
        self.key = key
        self.namespace = namespace
        self.number = number
        self.arrived_at = arrived_at
        self.queued = False
        self.queued_at = 0.0
        self.wait_started = self.queue_seconds = 0.0
        self.wake = False
        self.context_length = 0
        self.assigned: EndpointState | None = None
        self.error: Exception | None = None
        self.on_resolved: Callable[[], None] | None = None
        self.interrupt: Callable[[str], None] | None = None

    @property
    def endpoint(self) -> Endpoint | None:
        """The endpoint whose slot it holds."""
        return None if self.assigned is None else self.assigned.endpoint

    def end_wait(self, now: float) -> None:
        """Stop the wait timer. Idempotent."""
        if self.wait_started:
            self.queue_seconds += now - self.wait_started
            self.wait_started = 0.0


class ModelQueue:
    """Pending requests of one model in fair order, and its endpoints. ``completed`` counts finished requests.

    ``held`` are the pending requests that wait for a longer context, the oldest first, in no order with those in
    ``pending``. ``contexts`` counts the pending requests by the longer context that they ask for, which one that was
    held still does until it has a slot.
    """

    __slots__ = ("completed", "contexts", "endpoints", "held", "listed_endpoints", "pending")

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.pending: FairOrder[PendingRequest] = FairOrder(weights)
        self.held: dict[PendingRequest, None] = {}
        self.contexts: Counter[int] = Counter()
        self.endpoints: dict[str, EndpointState] = {}
        self.listed_endpoints: Iterable[Endpoint] = ()
        self.completed = 0

    @property
    def size(self) -> int:
        return self.pending.size + len(self.held)

    def remove(self, request: PendingRequest) -> None:
        """Remove a pending request."""
        if request in self.held:
            del self.held[request]
        else:
            self.pending.remove(request)

    def best_endpoint(self) -> EndpointState | None:
        """Return the available endpoint with the most free slots, None if there is none.

        Of equals the first one is taken, which keeps its prefix cache warm. Half-open endpoints come last.
        """
        best, most, half_open = None, 0, True
        for state in self.endpoints.values():
            if state.half_open or state.backing_off or not state.listed:
                free = state.free_slots
            else:
                free = state.capacity - len(state.running)  # as the property, which costs a call for every endpoint
            if free > 0 and (free > most if state.half_open == half_open else half_open):
                best, most, half_open = state, free, state.half_open
        return best

    def running(self) -> Iterator[PendingRequest]:
        """Iterate over the requests that hold slots."""
        for state in self.endpoints.values():
            yield from state.running
