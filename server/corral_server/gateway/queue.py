"""Who waits, who runs: one first-in-first-out line for each model, one bound over all that waits.

Everything here is synchronous and does no I/O; the callers wait and connect outside. What always holds after each call:

- Requests of one model get slots in the order of their arrival. One that comes back because its runner did not begin
  it takes its old place, before all that arrived later. No model's line holds up another's.
- An endpoint never has more requests than it is allowed (its slots, less what other gateways may use of them), except
  where that shrank below what it already had.
- An endpoint in doubt, which could not be reached or broke off, is tried by one request at a time until it is reached,
  and only when no other one is free: the rest of the line does not wait with it for a machine that is gone.
- While somebody waits in a line, none of its usable endpoints has a free slot.
- A request that has to wait is admitted by the rule of ``admission``. One that was admitted is never refused for want
  of room: those that come back may exceed the limit by what was in flight.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from corral_server.gateway.admission import Admission, Elsewhere, Holding, Nowhere, QueueFull
from corral_server.gateway.directory import Endpoint

Allowance = Callable[[str, Endpoint], int]
"""How many requests of this model may be at this endpoint from here."""


def all_slots(key: str, endpoint: Endpoint) -> int:
    """Nobody else uses the endpoint."""
    return endpoint.slots


class Place:
    """An endpoint as its line sees it. ``resting``: nothing is sent there for the moment.

    ``failures`` counts those since its last answer. While it is in doubt whether it is there at all (``doubted``),
    ``probe`` is the one request that tries it.
    """

    __slots__ = ("allowed", "doubted", "endpoint", "failures", "in_use", "listed", "probe", "resting")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.allowed = 0
        self.in_use = 0
        self.listed = True
        self.resting = False
        self.failures = 0
        self.doubted = False
        self.probe: Ticket | None = None

    @property
    def free(self) -> int:
        if not self.listed or self.resting:
            return 0
        free = self.allowed - self.in_use
        return min(free, 0 if self.probe else 1) if self.doubted else free

    def take(self, ticket: Ticket) -> None:
        self.in_use += 1
        ticket.place = self
        if self.doubted:
            self.probe = ticket

    def release(self, ticket: Ticket) -> None:
        self.in_use -= 1
        ticket.place = None
        if self.probe is ticket:
            self.probe = None


class Ticket:
    """One request's claim. It has a ``place`` while it holds a slot, and ``refused`` when it shall not get one.

    ``since`` is the arrival in Unix seconds, ``waits_since`` when it first had to wait, on the event loop's clock, kept
    by those who wait. ``listener`` is called when either of the two was set. ``waited`` is how many seconds it has
    waited until ``wait_began`` (``perf_counter``'s, 0 when it waits no more), ``woke`` whether no runner was ready when
    it began to.
    """

    __slots__ = (
        "key",
        "listener",
        "number",
        "place",
        "refused",
        "since",
        "wait_began",
        "waited",
        "waiting",
        "waits_since",
        "woke",
    )

    def __init__(self, key: str, number: int, *, since: float) -> None:
        self.key = key
        self.number = number
        self.since = since
        self.waiting = False
        self.waits_since = 0.0
        self.wait_began = self.waited = 0.0
        self.woke = False
        self.place: Place | None = None
        self.refused: Exception | None = None
        self.listener: Callable[[], None] | None = None

    def end_wait(self, now: float) -> None:
        """It waits no longer, or its client has left. May be called again."""
        if self.wait_began:
            self.waited += now - self.wait_began
            self.wait_began = 0.0


class Line:
    """The requests of one model, ordered by arrival, and the endpoints that serve it. ``ended`` counts those served."""

    __slots__ = ("ended", "places", "seen", "waiting")

    def __init__(self) -> None:
        self.waiting: OrderedDict[Ticket, None] = OrderedDict()
        self.places: dict[str, Place] = {}
        self.seen: Iterable[Endpoint] = ()
        self.ended = 0

    def best(self) -> Place | None:
        """The usable endpoint with most free slots; the first of equals, so that its prompt cache stays warm.

        One in doubt comes last.
        """
        found, most, doubted = None, 0, True
        for place in self.places.values():
            free = place.free
            if free > 0 and (free > most if place.doubted == doubted else doubted):
                found, most, doubted = place, free, place.doubted
        return found

    def restore(self, ticket: Ticket) -> None:
        """Puts a ticket back by its number: behind those that came back and arrived earlier, before all others."""
        earlier = list(itertools.takewhile(lambda other: other.number < ticket.number, self.waiting))
        self.waiting[ticket] = None
        for other in (ticket, *reversed(earlier)):
            self.waiting.move_to_end(other, last=False)


class Queue:
    """All lines. A ticket is closed exactly once by its owner, whatever became of it; closing again does nothing."""

    def __init__(self, limit: int, *, elsewhere: Elsewhere | None = None, allowance: Allowance = all_slots) -> None:
        self.limit = limit
        self.holding = Holding()
        self._admission = Admission(limit, self.holding, elsewhere or Nowhere())
        self._allowance = allowance
        self._lines: dict[str, Line] = {}
        self._numbers = itertools.count()

    @property
    def waiting(self) -> int:
        """How many requests wait, over all models."""
        return self.holding.total

    def waiting_for(self, key: str) -> int:
        line = self._lines.get(key)
        return len(line.waiting) if line else 0

    def oldest(self, key: str) -> float | None:
        """When the first in this line arrived."""
        line = self._lines.get(key)
        return next(iter(line.waiting)).since if line and line.waiting else None

    def in_use(self, key: str) -> int:
        """How many slots this model's requests hold."""
        line = self._lines.get(key)
        return sum(place.in_use for place in line.places.values()) if line else 0

    def keys(self) -> tuple[str, ...]:
        return tuple(self._lines)

    def enter(self, key: str, endpoints: Iterable[Endpoint], *, since: float, max_pending: int | None = None) -> Ticket:
        """A ticket with a place when a slot is free and nobody is before it, a waiting one otherwise.

        Raises QueueFull, LineFull.
        """
        ticket = self.enter_at_once(key, endpoints, since=since)
        if ticket is not None:
            return ticket
        line = self._lines.get(key) or self._lines.setdefault(key, Line())
        ticket = Ticket(key, next(self._numbers), since=since)
        try:
            self._admission.check(key, max_pending=max_pending)
        except QueueFull:
            self._tidy(key, line)
            raise
        self._wait(ticket)
        line.waiting[ticket] = None
        return ticket

    def enter_at_once(self, key: str, endpoints: Iterable[Endpoint], *, since: float) -> Ticket | None:
        """A ticket with a place, or None when the request would have to wait."""
        line = self._lines.get(key)
        if line is None or line.seen is not endpoints:
            self.update(key, endpoints)
            line = self._lines.get(key)
        place = None if line is None or line.waiting else line.best()
        if place is None:
            return None
        ticket = Ticket(key, next(self._numbers), since=since)
        place.take(ticket)
        return ticket

    def close(self, ticket: Ticket) -> None:
        """Ends the ticket: it leaves the line, or its slot goes to the next."""
        line = self._lines.get(ticket.key)
        if line is None:
            return
        if ticket.waiting:
            del line.waiting[ticket]
            self._stop_waiting(ticket)
        elif ticket.place is not None:
            line.ended += 1
            self._release(line, ticket)
            if line.waiting:
                self._assign(line)
        if not line.places:
            self._tidy(ticket.key, line)

    def back(self, ticket: Ticket) -> None:
        """The runner did not begin it: the ticket gives its slot back and waits again, at its old place in the order.

        Whoever calls this lets the endpoint rest first, or the ticket may be sent there again at once.
        """
        line = self._lines[ticket.key]
        self._release(line, ticket)
        self._wait(ticket)
        line.restore(ticket)
        self._assign(line)

    def update(self, key: str, endpoints: Iterable[Endpoint]) -> None:
        """The endpoints of this model from now on; requests that run on one that is gone go on running.

        An endpoint that is new or changed is usable at once, whatever it was before.
        """
        line = self._lines.get(key) or self._lines.setdefault(key, Line())
        line.seen = endpoints
        for place in line.places.values():
            place.listed = False
        for endpoint in endpoints:
            place = line.places.get(endpoint.id) or line.places.setdefault(endpoint.id, Place(endpoint))
            if place.endpoint != endpoint:
                place.endpoint, place.resting, place.failures = endpoint, False, 0
                place.doubted, place.probe = False, None
            place.listed = True
            place.allowed = self._allowance(key, endpoint)
        for gone in [place for place in line.places.values() if not place.listed and not place.in_use]:
            del line.places[gone.endpoint.id]
        self._assign(line)
        self._tidy(key, line)

    def reached(self, ticket: Ticket) -> bool:
        """The ticket's endpoint is there: all of its slots may be used. True when that is news."""
        place = ticket.place
        if place is None or not place.doubted:
            return False
        place.doubted, place.probe = False, None
        self._assign(self._lines[ticket.key])
        return True

    def wake(self, key: str, place: Place) -> None:
        """The endpoint has rested."""
        place.resting = False
        line = self._lines.get(key)
        if line is not None:
            self._assign(line)

    def recount(self, key: str) -> None:
        """What other gateways use of this model's endpoints is different now."""
        line = self._lines.get(key)
        if line is not None:
            for place in line.places.values():
                place.allowed = self._allowance(key, place.endpoint)
            self._assign(line)

    def give_up(self, ticket: Ticket, error: Exception) -> None:
        """A ticket that still waits is told the error; one that does not is left alone."""
        line = self._lines.get(ticket.key)
        if line is not None and ticket.waiting:
            del line.waiting[ticket]
            self._stop_waiting(ticket)
            ticket.refused = error
            _tell(ticket)
            self._tidy(ticket.key, line)

    def refuse(self, key: str, error: Exception) -> None:
        """All that wait in this line are told the error."""
        line = self._lines.get(key)
        for ticket in list(line.waiting) if line else ():
            self._stop_waiting(ticket)
            ticket.refused = error
            _tell(ticket)
        if line:
            line.waiting.clear()
            self._tidy(key, line)

    def _assign(self, line: Line) -> None:
        while line.waiting:
            place = line.best()
            if place is None:
                return
            ticket, _ = line.waiting.popitem(last=False)
            self._stop_waiting(ticket)
            place.take(ticket)
            _tell(ticket)

    def _release(self, line: Line, ticket: Ticket) -> None:
        place = ticket.place
        if place is None:
            return
        place.release(ticket)
        if not place.listed and not place.in_use:
            line.places.pop(place.endpoint.id, None)

    def _wait(self, ticket: Ticket) -> None:
        ticket.waiting = True
        self.holding.add(ticket.key, 1)

    def _stop_waiting(self, ticket: Ticket) -> None:
        ticket.waiting = False
        self.holding.add(ticket.key, -1)

    def _tidy(self, key: str, line: Line) -> None:
        if not line.waiting and not line.places:
            self._lines.pop(key, None)

    def lines(self) -> Iterator[tuple[str, Line]]:
        yield from self._lines.items()


def _tell(ticket: Ticket) -> None:
    if ticket.listener is not None:
        ticket.listener()
