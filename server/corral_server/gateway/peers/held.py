"""What one gateway holds: its waiting requests by model, and what API keys use. Gateways tell one another in a stream.

``GET /internal/held`` answers one such object; with ``?watch=true`` it is a stream, one JSON line at every change and
at least one every ``HEARTBEAT`` seconds. A gateway that was silent for ``SILENCE`` is taken to hold nothing: either it
is gone, and its requests with it, or nobody can know.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from corral_core.jsonfields import Json, mapping, text
from corral_server.gateway.admission import Holding

HEARTBEAT = 1.0
SILENCE = 3 * HEARTBEAT
COALESCE = 0.01
"""Seconds in which several changes become one line: what comes in them may exceed the bound over all gateways."""
PATH = "/internal/held"


@dataclass(frozen=True, slots=True)
class Held:
    """``waiting`` is by ``namespace/name`` of the Model; models for which nobody waits are not in it.

    ``uses`` is by name of key: requests that run, and those that began in the last minute. Only keys with a bound, and
    only those that are used, are in it.
    """

    gateway: str
    waiting: Mapping[str, int] = field(default_factory=dict)
    uses: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.waiting.values())

    def to_json(self) -> dict[str, object]:
        return {"gateway": self.gateway, "waiting": dict(self.waiting), "uses": dict(self.uses)}

    @classmethod
    def from_json(cls, data: Json) -> Held:
        """Raises ValueError when it says nothing of who speaks."""
        gateway = text(data, "gateway")
        if not gateway:
            raise ValueError("what a gateway holds lacks its name")
        found = mapping(data, "waiting")
        waiting = {key: number for key, number in found.items() if isinstance(number, int) and number > 0}
        return cls(gateway, waiting, {name: _use(said) for name, said in mapping(data, "uses").items()})


def _use(said: object) -> tuple[int, int]:
    """Numbers that make no sense count for nothing."""
    numbers = said if isinstance(said, list) and len(said) == 2 else [0, 0]
    running, lately = (max(0, number) if isinstance(number, int) else 0 for number in numbers)
    return running, lately


class Board:
    """Says what this gateway holds, to as many as watch."""

    def __init__(self, gateway: str, holding: Holding) -> None:
        self._gateway = gateway
        self._holding = holding
        self._changed = asyncio.Event()
        self._closing = False
        holding.changed = lambda: self._changed.set()

    def held(self) -> Held:
        return Held(self._gateway, dict(self._holding.by_key), self._holding.uses())

    def close(self) -> None:
        """Ends the streams."""
        self._closing = True
        self._changed.set()

    async def watch(self) -> AsyncIterator[Held]:
        """The level now, at every change (several within ``COALESCE`` as one), and every heartbeat."""
        while not self._closing:
            changed = self._changed = self._fresh()
            yield self.held()
            await asyncio.sleep(COALESCE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), HEARTBEAT)

    def _fresh(self) -> asyncio.Event:
        """An event that is not set yet; those who watch share it."""
        return asyncio.Event() if self._changed.is_set() else self._changed
