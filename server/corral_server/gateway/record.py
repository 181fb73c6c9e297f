"""What is noted of one request while it is served, and what is made of it when it has ended.

The exchange with the client tells when and what was written, the dispatcher how long it waited. Nothing of the request
or the answer is kept but counts; the one exception is the newest piece of an answer, where the access log reads the
numbers of tokens, and only while there is an access log.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from corral_server.gateway.messages import Headers
from corral_server.gateway.metrics import Meter
from corral_server.gateway.queue import Ticket

CLIENT_LEFT = 499
"""The code of a request whose client left before its answer was complete; nginx' number."""


class Record:
    """Times are ``perf_counter``'s. ``model`` is the Model's key, empty when there is none; ``ticket`` is there when
    the request could not go to a runner at once; ``client`` names the client's key; ``first`` and ``last`` are when
    pieces of the body were written, ``tail`` is the newest. ``sent``: it went to a runner; ``broken``: which broke off
    its answer.
    """

    # Defaults of the class: what is never set costs nothing, and this is made for every request.
    first: float = 0.0
    last: float = 0.0
    ended: float = 0.0
    status: int = 0
    size: int = 0
    broken: bool = False
    sent: bool = False
    method: str = "POST"
    client: str = ""
    tail: bytes = b""
    ticket: Ticket | None = None

    def __init__(self, meter: Meter, *, model: str, api: str, headers: Headers, sink: Sink | None) -> None:
        self.meter = meter
        self.model = model
        self.api = api
        self.headers = headers
        self.sink = sink
        self.begun = perf_counter()

    def about(self, model: str, meter: Meter) -> None:
        """Which Model the request is for is known now."""
        self.model, self.meter = model, meter

    def wrote(self, piece: bytes, *, stream: bool = False) -> None:
        """A piece of the answer's body, perhaps empty, goes to the client; ``stream``: as one of many."""
        now = perf_counter()
        if not self.first:
            self.first = now
        elif stream and piece:
            self.meter.chunk.observe(now - self.last)
        self.last = now
        self.size += len(piece)
        if self.sink is not None and len(piece) > 32:  # what is shorter only says that the end has come
            self.tail = piece

    def end(self, *, left: bool = False) -> None:
        """The answer is written, or the client left. Once."""
        self.ended = perf_counter() if left or not self.last else self.last
        if left:
            self.status = CLIENT_LEFT
        if self.ticket is not None:
            self.ticket.end_wait(self.ended)
        meter, key = self.meter, (self.api, self.status)
        meter.requests[key] = meter.requests.get(key, 0) + 1
        meter.bytes += self.size
        if self.model:
            self._measure(meter)
        if self.sink is not None:
            self.sink(self)
            self.tail = b""

    def _measure(self, meter: Meter) -> None:
        ticket = self.ticket
        if ticket is None:
            meter.queue_wait.counts[0] += self.sent  # an observation of nothing; one that was refused has not waited
        else:
            meter.queue_wait.observe(ticket.waited)
            if ticket.woke:
                meter.wake.observe(ticket.waited)
        if self.broken:
            meter.broken += self.status < 400
        elif self.status < 400:
            meter.answered(self.first - self.begun, self.ended - self.begun)


Sink = Callable[[Record], None]
"""Gets each record when its request has ended."""
