"""State machine test of the queue against a simple model of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from corral_server.gateway.directory.directory import Endpoint
from corral_server.gateway.queueing.admission import ModelQueueFull, QueueFull
from corral_server.gateway.queueing.model_queue import EndpointState, PendingRequest
from corral_server.gateway.queueing.queue import RequestQueue

KEYS = st.sampled_from(["a", "b", "c"])
NAMESPACES = st.sampled_from(["", "", "x", "y"])
WEIGHTS = {"x": 2.0, "y": 0.5}
NAMES = st.sampled_from(["one", "two"])


@dataclass
class SimpleQueue:
    """SimpleQueue model of a model's queue: request numbers, and slots by endpoint."""

    waiting: list[int] = field(default_factory=list)
    running: dict[int, str] = field(default_factory=dict)
    slots: dict[str, int] = field(default_factory=dict)
    shares: dict[str, int] = field(default_factory=dict)
    backing_off: set[str] = field(default_factory=set)

    def used(self, name: str) -> int:
        return list(self.running.values()).count(name)

    def allowed(self, name: str) -> int:
        """Return the slots that the peers leave."""
        return min(self.slots[name], self.shares.get(name, 9))

    def usable(self) -> bool:
        return any(self.used(name) < self.allowed(name) for name in self.slots if name not in self.backing_off)


@dataclass
class FakePeers:
    """Pending requests at the peers."""

    waiting: dict[str, int] = field(default_factory=dict)

    def pending_total(self) -> int:
        return sum(self.waiting.values())

    def pending_for(self, key: str) -> int:
        return self.waiting.get(key, 0)

    def pending_by_namespace(self) -> dict[str, dict[str, int]]:
        return {key: {"": number} for key, number in self.waiting.items() if number}


class QueueMachine(RuleBasedStateMachine):
    requests: Bundle[PendingRequest] = Bundle("requests")

    @initialize(limit=st.integers(0, 6))
    def start(self, limit: int) -> None:
        self.limit = limit
        self.peers = FakePeers()
        self.simple = {key: SimpleQueue() for key in ("a", "b", "c")}
        self.queue = RequestQueue(limit, peers=self.peers, capacity=self.capacity, weights=WEIGHTS)
        self.listed: dict[str, tuple[Endpoint, ...]] = dict.fromkeys(self.simple, ())
        self.alive: dict[int, PendingRequest] = {}
        self.notified: dict[int, int] = {}
        self.returned = self.brought = 0

    def track_excess(self) -> None:
        """Track the excess at the peers, which was not admitted here."""
        self.brought = max(self.brought, self.queue.pending + self.peers.pending_total() - self.limit)

    def capacity(self, key: str, endpoint: Endpoint) -> int:
        return min(endpoint.slots, self.simple[key].shares.get(endpoint.id, 9))

    def by_namespace(self) -> dict[tuple[str, str], int]:
        """Return the pending requests by model and namespace, here and at the peers."""
        held = Counter({(key, ""): self.peers.pending_for(key) for key in self.simple})
        held.update((key, self.alive[number].namespace) for key, line in self.simple.items() for number in line.waiting)
        return {pair: number for pair, number in held.items() if number}

    def full(self, key: str, namespace: str) -> bool:
        held = self.by_namespace()
        total = sum(held.values())
        if total < self.limit:
            return False
        active = {found for _, found in held} | {namespace}
        share = self.limit * WEIGHTS.get(namespace, 1.0) / sum(WEIGHTS.get(each, 1.0) for each in active)
        mine = [number for (_, found), number in held.items() if found == namespace]
        if total < 2 * self.limit and sum(mine) < share:
            return False
        return (key, namespace) in held or len(mine) >= share

    def own_full(self, key: str, namespace: str, most: int) -> bool:
        held = {found: number for (model, found), number in self.by_namespace().items() if model == key}
        active = {*held, namespace}
        share = most * WEIGHTS.get(namespace, 1.0) / sum(WEIGHTS.get(each, 1.0) for each in active)
        return sum(held.values()) >= most and (len(active) == 1 or held.get(namespace, 0) >= share)

    @rule(target=requests, key=KEYS, namespace=NAMESPACES, most=st.none() | st.integers(1, 4))
    def submit(self, key: str, namespace: str, most: int | None) -> PendingRequest | MultipleResults[PendingRequest]:
        line = self.simple[key]
        at_once = not line.waiting and line.usable()
        own_full = most is not None and self.own_full(key, namespace, most)
        full = self.full(key, namespace)
        try:
            request = self.queue.submit(key, self.listed[key], arrived_at=0, namespace=namespace, max_pending=most)
        except ModelQueueFull:
            assert own_full
            assert not at_once
            return multiple()
        except QueueFull:
            assert full
            assert not at_once
            return multiple()
        assert at_once or not (own_full or full)
        self.notified[request.number] = 0
        self.alive[request.number] = request
        request.on_resolved = lambda: self.notify(request.number)
        if at_once:
            assert request.assigned is not None
            line.running[request.number] = request.assigned.endpoint.id
        else:
            line.waiting.append(request.number)
        return request

    def notify(self, number: int) -> None:
        self.notified[number] += 1

    @rule(request=consumes(requests))
    def finish(self, request: PendingRequest) -> None:
        """Finish a request in any state."""
        line = self.simple[request.key]
        self.queue.finish(request)
        self.queue.finish(request)
        self.alive.pop(request.number, None)
        line.running.pop(request.number, None)
        if request.number in line.waiting:
            line.waiting.remove(request.number)
        self.apply_assignments()

    @rule(request=requests)
    def requeue(self, request: PendingRequest) -> None:
        line, state = self.simple[request.key], request.assigned
        if state is None:
            return
        state.backing_off = True
        if state.listed:
            line.backing_off.add(state.endpoint.id)
        del line.running[request.number]
        line.waiting = sorted([*line.waiting, request.number])
        self.notified[request.number] = 0
        self.returned += 1
        self.queue.requeue(request)
        self.apply_assignments()

    @rule(request=requests)
    def reject(self, request: PendingRequest) -> None:
        """Reject a pending request; others are not affected."""
        line = self.simple[request.key]
        self.queue.reject(request, TimeoutError())
        if request.number in line.waiting:
            line.waiting.remove(request.number)
            assert isinstance(self.alive.pop(request.number).error, TimeoutError)
            assert self.notified[request.number] == 1

    @rule(key=KEYS, number=st.integers(0, 6))
    def peers_queue(self, key: str, number: int) -> None:
        self.peers.waiting[key] = number
        self.track_excess()

    @rule(key=KEYS, name=NAMES, share=st.integers(0, 3))
    def peers_use(self, key: str, name: str, share: int) -> None:
        self.simple[key].shares[name] = share
        self.queue.refresh_capacity(key)
        self.apply_assignments()

    @rule(key=KEYS, found=st.dictionaries(NAMES, st.integers(0, 3)))
    def update(self, key: str, found: dict[str, int]) -> None:
        line = self.simple[key]
        before = self.states_of(key)
        self.listed[key] = tuple(Endpoint(name, "127.0.0.1", 1, slots) for name, slots in found.items())
        for name in list(line.backing_off):
            known = before.get(name)
            if known is None or (name in found and known.endpoint.slots != found[name]):
                line.backing_off.discard(name)
        line.slots = found
        self.queue.update_endpoints(key, self.listed[key])
        line.backing_off &= {name for name, state in self.states_of(key).items() if state.backing_off}
        self.apply_assignments()

    @rule(key=KEYS, name=NAMES)
    def end_backoff(self, key: str, name: str) -> None:
        state = self.states_of(key).get(name)
        if state is not None:
            self.simple[key].backing_off.discard(name)
            self.queue.end_backoff(key, state)
            self.apply_assignments()

    @rule(key=KEYS)
    def reject_all(self, key: str) -> None:
        line = self.simple[key]
        self.queue.reject_all(key, RuntimeError("no"))
        for number in line.waiting:
            assert self.alive.pop(number).error is not None
        line.waiting = []

    @invariant()
    def no_request_is_pending_while_a_slot_is_free(self) -> None:
        for key, line in getattr(self, "simple", {}).items():
            assert not (line.waiting and line.usable()), key
            assert self.queue.pending_for(key) == len(line.waiting)
            assert self.queue.slots_in_use(key) == len(line.running)

    @invariant()
    def the_limit_holds(self) -> None:
        if hasattr(self, "queue"):
            assert self.queue.pending == sum(len(line.waiting) for line in self.simple.values())
            over = self.queue.pending + self.peers.pending_total() - self.limit
            assert over <= self.returned + self.brought + self.limit + max(0, len(self.simple) - 1)

    def teardown(self) -> None:
        """All remaining requests are served in order."""
        if not hasattr(self, "queue"):
            return
        for key, line in self.simple.items():
            line.shares.clear()
            self.update(key, {"last": 1})
            while line.running:
                self.finish(self.alive[min(line.running)])
            assert not line.waiting
        assert not self.alive
        for key in self.simple:
            self.queue.update_endpoints(key, ())
        assert dict(self.queue.model_queues()) == {}
        assert self.queue.pending == 0

    def apply_assignments(self) -> None:
        """Apply assigned slots to the simple model, and check their order, uniqueness and number."""
        for line in self.simple.values():
            granted = [number for number in line.waiting if self.alive[number].assigned is not None]
            for namespace in {self.alive[number].namespace for number in granted}:
                mine = [number for number in line.waiting if self.alive[number].namespace == namespace]
                served = [number for number in granted if self.alive[number].namespace == namespace]
                assert served == mine[: len(served)], "not in order"
            for number in granted:
                state = self.alive[number].assigned
                assert state is not None
                assert self.notified[number] == 1
                assert state.endpoint.id not in line.backing_off
                line.waiting.remove(number)
                line.running[number] = state.endpoint.id
                assert line.used(state.endpoint.id) <= line.allowed(state.endpoint.id)

    def states_of(self, key: str) -> dict[str, EndpointState]:
        return {
            name: state
            for found, line in self.queue.model_queues()
            if found == key
            for name, state in line.endpoints.items()
        }


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
