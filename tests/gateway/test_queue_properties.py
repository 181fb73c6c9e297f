"""The queue against a simple model of it: whatever happens in whatever order, its promises hold."""

from __future__ import annotations

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

from corral_server.gateway.admission import LineFull, QueueFull
from corral_server.gateway.directory import Endpoint
from corral_server.gateway.queue import Place, Queue, Ticket

KEYS = st.sampled_from(["a", "b", "c"])
NAMES = st.sampled_from(["one", "two"])


@dataclass
class Simple:
    """A model's line, told as plainly as possible: numbers of tickets, and slots by endpoint."""

    waiting: list[int] = field(default_factory=list)
    running: dict[int, str] = field(default_factory=dict)
    slots: dict[str, int] = field(default_factory=dict)
    shares: dict[str, int] = field(default_factory=dict)
    resting: set[str] = field(default_factory=set)

    def used(self, name: str) -> int:
        return list(self.running.values()).count(name)

    def allowed(self, name: str) -> int:
        """Other gateways may leave less than all slots."""
        return min(self.slots[name], self.shares.get(name, 9))

    def usable(self) -> bool:
        return any(self.used(name) < self.allowed(name) for name in self.slots if name not in self.resting)


@dataclass
class Others:
    """What waits at other gateways."""

    waiting: dict[str, int] = field(default_factory=dict)

    def total(self) -> int:
        return sum(self.waiting.values())

    def of(self, key: str) -> int:
        return self.waiting.get(key, 0)

    def keys(self) -> set[str]:
        return {key for key, number in self.waiting.items() if number}


class QueueMachine(RuleBasedStateMachine):
    tickets: Bundle[Ticket] = Bundle("tickets")

    @initialize(limit=st.integers(0, 6))
    def start(self, limit: int) -> None:
        self.limit = limit
        self.others = Others()
        self.lines = {key: Simple() for key in ("a", "b", "c")}
        self.queue = Queue(limit, elsewhere=self.others, allowance=self.allowance)
        self.listed: dict[str, tuple[Endpoint, ...]] = dict.fromkeys(self.lines, ())
        self.alive: dict[int, Ticket] = {}
        self.told: dict[int, int] = {}
        self.returned = self.brought = 0

    def overhang(self) -> None:
        """What other gateways hold beyond the limit was not admitted here."""
        self.brought = max(self.brought, self.queue.waiting + self.others.total() - self.limit)

    def allowance(self, key: str, endpoint: Endpoint) -> int:
        return min(endpoint.slots, self.lines[key].shares.get(endpoint.id, 9))

    def held(self) -> dict[str, int]:
        """What waits for each model, here and elsewhere."""
        held = {key: len(line.waiting) + self.others.of(key) for key, line in self.lines.items()}
        return {key: number for key, number in held.items() if number}

    @rule(target=tickets, key=KEYS, most=st.none() | st.integers(1, 4))
    def enter(self, key: str, most: int | None) -> Ticket | MultipleResults[Ticket]:
        line, held = self.lines[key], self.held()
        at_once = not line.waiting and line.usable()
        own_full = most is not None and held.get(key, 0) >= most
        full = sum(held.values()) >= self.limit and (key in held or len(held) >= self.limit)
        try:
            ticket = self.queue.enter(key, self.listed[key], since=0, max_pending=most)
        except LineFull:
            assert own_full
            assert not at_once
            return multiple()
        except QueueFull:
            assert full
            assert not at_once
            return multiple()
        assert at_once or not (own_full or full)
        self.told[ticket.number] = 0
        self.alive[ticket.number] = ticket
        ticket.listener = lambda: self.tell(ticket.number)
        if at_once:
            assert ticket.place is not None
            line.running[ticket.number] = ticket.place.endpoint.id
        else:
            line.waiting.append(ticket.number)
        return ticket

    def tell(self, number: int) -> None:
        self.told[number] += 1

    @rule(ticket=consumes(tickets))
    def close(self, ticket: Ticket) -> None:
        """It ended, or its client left: from every state."""
        line = self.lines[ticket.key]
        self.queue.close(ticket)
        self.queue.close(ticket)
        self.alive.pop(ticket.number, None)
        line.running.pop(ticket.number, None)
        if ticket.number in line.waiting:
            line.waiting.remove(ticket.number)
        self.follow()

    @rule(ticket=tickets)
    def back(self, ticket: Ticket) -> None:
        line, place = self.lines[ticket.key], ticket.place
        if place is None:
            return
        place.resting = True
        if place.listed:
            line.resting.add(place.endpoint.id)
        del line.running[ticket.number]
        line.waiting = sorted([*line.waiting, ticket.number])
        self.told[ticket.number] = 0
        self.returned += 1
        self.queue.back(ticket)
        self.follow()

    @rule(ticket=tickets)
    def give_up(self, ticket: Ticket) -> None:
        """It waited too long; one that does not wait is left alone."""
        line = self.lines[ticket.key]
        self.queue.give_up(ticket, TimeoutError())
        if ticket.number in line.waiting:
            line.waiting.remove(ticket.number)
            assert isinstance(self.alive.pop(ticket.number).refused, TimeoutError)
            assert self.told[ticket.number] == 1

    @rule(key=KEYS, number=st.integers(0, 6))
    def others_hold(self, key: str, number: int) -> None:
        self.others.waiting[key] = number
        self.overhang()

    @rule(key=KEYS, name=NAMES, share=st.integers(0, 3))
    def others_use(self, key: str, name: str, share: int) -> None:
        self.lines[key].shares[name] = share
        self.queue.recount(key)
        self.follow()

    @rule(key=KEYS, found=st.dictionaries(NAMES, st.integers(0, 3)))
    def update(self, key: str, found: dict[str, int]) -> None:
        line = self.lines[key]
        before = self.place_of(key)
        self.listed[key] = tuple(Endpoint(name, "127.0.0.1", 1, slots) for name, slots in found.items())
        for name in list(line.resting):
            known = before.get(name)
            if known is None or (name in found and known.endpoint.slots != found[name]):
                line.resting.discard(name)
        line.slots = found
        self.queue.update(key, self.listed[key])
        line.resting &= {name for name, place in self.place_of(key).items() if place.resting}
        self.follow()

    @rule(key=KEYS, name=NAMES)
    def wake(self, key: str, name: str) -> None:
        place = self.place_of(key).get(name)
        if place is not None:
            self.lines[key].resting.discard(name)
            self.queue.wake(key, place)
            self.follow()

    @rule(key=KEYS)
    def refuse(self, key: str) -> None:
        line = self.lines[key]
        self.queue.refuse(key, RuntimeError("no"))
        for number in line.waiting:
            assert self.alive.pop(number).refused is not None
        line.waiting = []

    @invariant()
    def nothing_waits_before_a_free_slot(self) -> None:
        for key, line in getattr(self, "lines", {}).items():
            assert not (line.waiting and line.usable()), key
            assert self.queue.waiting_for(key) == len(line.waiting)
            assert self.queue.in_use(key) == len(line.running)

    @invariant()
    def the_bound_holds(self) -> None:
        if hasattr(self, "queue"):
            assert self.queue.waiting == sum(len(line.waiting) for line in self.lines.values())
            over = self.queue.waiting + self.others.total() - self.limit
            assert over <= self.returned + self.brought + max(0, len(self.lines) - 1)

    def teardown(self) -> None:
        """Whoever did not leave and was not refused is served in the end, in order."""
        if not hasattr(self, "queue"):
            return
        for key, line in self.lines.items():
            line.shares.clear()
            self.update(key, {"last": 1})
            while line.running:
                self.close(self.alive[min(line.running)])
            assert not line.waiting
        assert not self.alive
        for key in self.lines:
            self.queue.update(key, ())
        assert self.queue.keys() == ()
        assert self.queue.waiting == 0

    def follow(self) -> None:
        """Takes over what was granted, and checks that it was the right ones, once each, within the slots."""
        for line in self.lines.values():
            granted = [number for number in line.waiting if self.alive[number].place is not None]
            assert granted == line.waiting[: len(granted)], "not in order"
            for number in granted:
                place = self.alive[number].place
                assert place is not None
                assert self.told[number] == 1
                assert place.endpoint.id not in line.resting
                line.waiting.remove(number)
                line.running[number] = place.endpoint.id
                assert line.used(place.endpoint.id) <= line.allowed(place.endpoint.id)

    def place_of(self, key: str) -> dict[str, Place]:
        return {
            name: place for found, line in self.queue.lines() if found == key for name, place in line.places.items()
        }


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
