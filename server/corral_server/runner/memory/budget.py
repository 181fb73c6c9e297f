"""Budget for the memory that requests hold together: bodies, prompts, tokens and output that was not read yet.

Without it, a few large requests exceed the container's limit; the kernel then kills the runner and every request in it.

Invariants:

- a request reserves memory before it takes it, and has returned all of it when its response has ended;
- a request that alone exceeds the budget is refused with 413, one that does not fit at the moment with 503 and
  Retry-After;
- the last quarter is reserved for small requests, so that large ones do not shut them out.

Safe from any thread.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from corral_core.weights.memory_estimate import MIB, REQUEST_BYTES
from corral_server.wire.errors import ApiError

SMALL_REQUEST = MIB
"""Bytes of a request that may use the last quarter of the budget."""
RETRY_AFTER = 5
"""Seconds after which a refused client may try again."""
TOO_LARGE, NO_MEMORY = "too_large", "no_memory"
"""Reasons of refusals: the request alone exceeds the budget; other requests use it up."""


class RequestMemory:
    """``total`` bounds the bytes of all requests, ``used`` is what they have reserved now."""

    def __init__(self, total: int = REQUEST_BYTES) -> None:
        self.total = total
        self.used = 0
        self.refused = Counter(dict.fromkeys((TOO_LARGE, NO_MEMORY), 0))
        """Refusals by reason."""
        self.lock = threading.Lock()

    @property
    def spare(self) -> int:
        """Bytes that a large request may take now."""
        return max(0, self.total - self.total // 4 - self.used)

    def allowed(self, size: int) -> int:
        """Return how much of the budget a request of this size may fill."""
        return self.total if size <= SMALL_REQUEST else self.total - self.total // 4


class Reservation:
    """The memory of one request."""

    def __init__(self, memory: RequestMemory) -> None:
        self._memory = memory
        self.size = 0

    def try_grow(self, size: int) -> str:
        """Reserve ``size`` more bytes; return the reason when they are refused, empty otherwise."""
        memory, whole = self._memory, self.size + size
        allowed = memory.allowed(whole)
        with memory.lock:
            if memory.used + size > allowed:
                reason = TOO_LARGE if whole > allowed else NO_MEMORY
                memory.refused[reason] += 1
                return reason
            memory.used += size
        self.size = whole
        return ""

    def grow(self, size: int) -> None:
        """Reserve ``size`` more bytes. Raises ApiError 413 or 503."""
        reason = self.try_grow(size)
        if reason == TOO_LARGE:
            raise ApiError(413, self._too_large(self.size + size))
        if reason:
            raise ApiError(503, "the model's requests use all of its memory, please try again", retry_after=RETRY_AFTER)

    def shrink(self, size: int) -> None:
        """Return ``size`` bytes."""
        self.size -= size
        with self._memory.lock:
            self._memory.used -= size

    def release(self) -> None:
        """Return everything; calling it again has no effect."""
        self.shrink(self.size)

    @contextmanager
    def borrow(self, minimum: int, maximum: int) -> Iterator[int]:
        """Reserve half of what is spare, within these bounds, during the block; yield how much that is.

        It is a reservation of its own, because a thread may go on when the request has ended. Raises ApiError 413 or
        503 when less than ``minimum`` is spare.
        """
        borrowed = Reservation(self._memory)
        borrowed.grow(max(minimum, min(maximum, self._memory.spare // 2)))
        try:
            yield borrowed.size
        finally:
            borrowed.release()

    def _too_large(self, size: int) -> str:
        allowed = self._memory.allowed(size)
        return (
            f"the request takes {-(-size // MIB)} MiB of memory, more than the {allowed // MIB} MiB that the model has "
            "for one request; send less or ask for less output, or raise the Model's spec.pod.resources.limits.memory"
        )


_current: ContextVar[Reservation | None] = ContextVar("reservation", default=None)


def current_reservation() -> Reservation:
    """Return the reservation of the request that the current task serves; outside of requests one of its own."""
    return _current.get() or Reservation(RequestMemory())


def set_current_reservation(reservation: Reservation) -> None:
    """Make it the reservation of the current task and of the tasks that it starts."""
    _current.set(reservation)
