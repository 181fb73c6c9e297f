"""Brings the queue, the directory and the clock together: who gets which runner, and when to try again.

A runner that could not be reached, broke off an answer, or says that it is loading or draining, rests for a moment that
doubles with each failure; its requests wait at their old places, and after the rest one of them tries it. A change of
the endpoint ends the rest at once. A request waits at most as long as its Model (``queue.maxWait``) or the
installation says.
"""

from __future__ import annotations

import asyncio
import functools
import time

from corral_server.gateway.admission import Elsewhere, LineFull, QueueFull
from corral_server.gateway.directory import Directory, Endpoint, Entry
from corral_server.gateway.metrics import Meters
from corral_server.gateway.queue import Allowance, Place, Queue, Ticket, all_slots
from corral_server.gateway.routing.bounds import NO_BOUNDS, Bounds
from corral_server.gateway.routing.demand import Statements
from corral_server.gateway.routing.pace import Pace
from corral_server.gateway.routing.refusal import failure_of, line_full, queue_full, waited_too_long

FIRST_REST, LONGEST_REST = 0.05, 1.0
"""Seconds that an endpoint rests after its first failure, and at most."""
AFTER_BREAK = 0.25
"""Seconds that it rests at least after an answer broke off: a process that is killed takes a moment to be gone."""


class ModelGone(Exception):
    """The Model was removed while requests waited for it."""


class Dispatcher:
    """The only owner of the queue. All methods are called on the event loop; only ``place`` waits."""

    def __init__(
        self,
        directory: Directory,
        *,
        limit: int,
        elsewhere: Elsewhere | None = None,
        allowance: Allowance = all_slots,
        bounds: Bounds = NO_BOUNDS,
        meters: Meters | None = None,
    ) -> None:
        self._directory = directory
        self._bounds = bounds
        self._meters = meters or Meters(directory)
        self._queue = Queue(limit, elsewhere=elsewhere, allowance=allowance)
        self._pace = Pace(self._queue)
        self._statements = Statements(directory.demand, self._level)
        self._rests: dict[Place, asyncio.TimerHandle] = {}
        directory.subscribe(self._changed)

    @property
    def waiting(self) -> int:
        return self._queue.waiting

    @property
    def queue(self) -> Queue:
        return self._queue

    def enter(self, entry: Entry) -> Ticket:
        """Admits a request. Raises ApiError: 503 when too many wait, or why the Model cannot be served."""
        if entry.failure is not None:
            self._meters.of(entry.key).refused["unavailable"] += 1
            raise failure_of(entry)
        key, most = entry.key, self._bounds.pending_of(entry)
        try:
            ticket = self._queue.enter(key, entry.endpoints, since=time.time(), max_pending=most)
        except LineFull:
            self._meters.of(key).refused["line_full"] += 1
            raise line_full(entry, most or 0, self._pace.retry_after(key)) from None
        except QueueFull:
            self._meters.of(key).refused["queue_full"] += 1
            raise queue_full(self._pace.retry_after(key)) from None
        if ticket.waiting:
            ticket.woke = not entry.endpoints
            self._now_waits(ticket)
        return ticket

    def enter_at_once(self, entry: Entry) -> Ticket | None:
        """A ticket that has its place, or None when the request would have to wait or cannot be served."""
        if entry.failure is not None:
            return None
        return self._queue.enter_at_once(entry.key, entry.endpoints, since=time.time())

    async def place(self, ticket: Ticket) -> Endpoint:
        """Waits for a slot. Raises ModelGone, or ApiError when the Model cannot be served any more or for too long."""
        if ticket.place is None and ticket.refused is None:
            turn = asyncio.get_running_loop().create_future()
            ticket.listener = functools.partial(_settle, turn)
            timer = self._patience(ticket)
            ticket.wait_began = time.perf_counter()
            try:
                await turn
            finally:
                ticket.end_wait(time.perf_counter())
                ticket.listener = None
                if timer is not None:
                    timer.cancel()
        if ticket.refused is not None:
            raise ticket.refused
        assert ticket.place is not None
        return ticket.place.endpoint

    def close(self, ticket: Ticket) -> None:
        """Ends the request, whatever its state; may be called again."""
        self._queue.close(ticket)
        if ticket.key in self._statements:
            self._statements.note(ticket.key)

    def reached(self, ticket: Ticket) -> None:
        """The runner is there, whatever it does with the request."""
        if self._queue.reached(ticket) and ticket.key in self._statements:
            self._statements.note(ticket.key)

    def answered(self, ticket: Ticket) -> None:
        """The runner began to answer: it is well."""
        place = ticket.place
        if place is not None:
            place.failures = 0
            if place.doubted:
                self.reached(ticket)

    def broke(self, ticket: Ticket) -> None:
        """The runner left the request unanswered: perhaps it dies, and whatever it gets now would die with it."""
        if ticket.place is not None:
            ticket.place.doubted = True
            self._rest(ticket.key, ticket.place, least=AFTER_BREAK)

    def back(self, ticket: Ticket, *, doubt: bool) -> None:
        """The runner did not begin the request: it waits again, first in its line, and the runner rests.

        ``doubt``: whether it is there at all is not known.
        """
        if ticket.place is None:
            return
        self._meters.of(ticket.key).retries["unreachable" if doubt else "not_ready"] += 1
        ticket.place.doubted |= doubt
        self._rest(ticket.key, ticket.place)
        self._queue.back(ticket)
        self._now_waits(ticket)
        entry = self._directory.get(ticket.key)
        if entry is None or entry.failure is not None:
            self._changed(ticket.key)

    def recount(self, key: str) -> None:
        """What other gateways hold of this model, or use of its runners, is different now."""
        self._queue.recount(key)
        if key in self._statements:
            self._statements.note(key)

    def shutdown(self) -> None:
        """Ends the timers and withdraws the demand."""
        for timer in self._rests.values():
            timer.cancel()
        self._rests.clear()
        self._statements.close()
        self._pace.close()

    def _now_waits(self, ticket: Ticket) -> None:
        if not ticket.waits_since:
            ticket.waits_since = asyncio.get_running_loop().time()
        self._pace.waiting()
        self._statements.note(ticket.key)

    def _patience(self, ticket: Ticket) -> asyncio.TimerHandle | None:
        """Ends the wait in time, if it is bounded."""
        entry = self._directory.get(ticket.key)
        limit = self._bounds.wait_of(entry) if entry is not None else None
        if entry is None or limit is None:
            return None
        return asyncio.get_running_loop().call_at(ticket.waits_since + limit, self._give_up, ticket, entry, limit)

    def _give_up(self, ticket: Ticket, entry: Entry, limit: float) -> None:
        if ticket.waiting:
            self._meters.of(ticket.key).refused["waited_too_long"] += 1
            self._queue.give_up(ticket, waited_too_long(entry, limit, self._pace.retry_after(ticket.key)))

    def _rest(self, key: str, place: Place, *, least: float = FIRST_REST) -> None:
        if place.resting:
            return
        place.resting = True
        seconds = max(least, min(LONGEST_REST, FIRST_REST * 2.0 ** min(place.failures, 10)))
        place.failures += 1
        previous = self._rests.pop(place, None)
        if previous is not None:
            previous.cancel()
        self._rests[place] = asyncio.get_running_loop().call_later(seconds, self._rested, key, place)

    def _rested(self, key: str, place: Place) -> None:
        self._rests.pop(place, None)
        self._queue.wake(key, place)
        if key in self._statements:
            self._statements.note(key)

    def _changed(self, key: str) -> None:
        entry = self._directory.get(key)
        if entry is None:
            self._queue.refuse(key, ModelGone())
            self._queue.update(key, ())
        elif entry.failure is not None:
            self._queue.refuse(key, failure_of(entry))
            self._queue.update(key, entry.endpoints)
        else:
            self._queue.update(key, entry.endpoints)
        if key in self._statements:
            self._statements.note(key)

    def _level(self, key: str) -> tuple[int, float | None]:
        return self._queue.waiting_for(key), self._queue.oldest(key)


def _settle(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
