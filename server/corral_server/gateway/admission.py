"""Who may wait: one bound over everything that waits in the installation, kept fair between models.

The rule, for a request that has to wait:

- While fewer than ``limit`` wait, over all models and all gateways, it may.
- Once that many wait, only a model of which nobody waits yet still gets a place, one, and only while fewer models wait
  than ``limit``. So one model's flood ends at the limit exactly, and shuts out no other model: each can state that it
  is wanted, is loaded, and is served request by request. What is over the limit, at most one place for each model
  but the first, is given back by the flood, which is not admitted again before fewer than ``limit`` wait.
- A Model's own ``queue.maxPending`` bounds what waits for it, over all gateways.

A request that was admitted is never refused for want of room. What other gateways hold is known as of their last
message, so the bound can be exceeded by what arrives before the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol


class QueueFull(Exception):
    """As many requests wait as may."""


class LineFull(QueueFull):
    """As many requests wait for this one model as may."""


class Elsewhere(Protocol):
    """What waits at other gateways, as far as it is known."""

    def total(self) -> int: ...

    def of(self, key: str) -> int: ...

    def keys(self) -> Iterable[str]:
        """The models for which somebody waits there."""


class Nowhere:
    """There is no other gateway."""

    def total(self) -> int:
        return 0

    def of(self, key: str) -> int:
        return 0

    def keys(self) -> Iterable[str]:
        return ()


class Holding:
    """What is held here: how many requests wait, in all and by model, and what API keys with bounds use of them.

    ``changed()`` is called after every change. ``uses`` gives, by the name of the key, how many of its requests run and
    how many began in the last minute.
    """

    def __init__(self) -> None:
        self.total = 0
        self.by_key: dict[str, int] = {}
        self.changed: Callable[[], None] = _nobody
        self.uses: Callable[[], Mapping[str, tuple[int, int]]] = dict

    def add(self, key: str, number: int) -> None:
        self.total += number
        held = self.by_key.get(key, 0) + number
        if held:
            self.by_key[key] = held
        else:
            del self.by_key[key]
        self.changed()


class Admission:
    """The rule above over what waits here and elsewhere."""

    def __init__(self, limit: int, holding: Holding, elsewhere: Elsewhere) -> None:
        self._limit = limit
        self._holding = holding
        self._elsewhere = elsewhere

    def check(self, key: str, *, max_pending: int | None = None) -> None:
        """Whether one more may wait for this model. Raises QueueFull, LineFull."""
        if max_pending is not None and self._held_for(key) >= max_pending:
            raise LineFull
        if self._holding.total + self._elsewhere.total() < self._limit:
            return
        if self._held_for(key) or len({*self._holding.by_key, *self._elsewhere.keys()}) >= self._limit:
            raise QueueFull

    def _held_for(self, key: str) -> int:
        return self._holding.by_key.get(key, 0) + self._elsewhere.of(key)


def _nobody() -> None:
    """Is told."""
