"""Follows what the runners in use say of themselves, so that several gateways share their slots.

Only while there are other gateways: a single one knows already what it sends. A runner is followed from the first look
that finds requests running at it or waiting for it, until none were there for ``LINGER``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from corral_core.activity import HEARTBEAT, Activity
from corral_core.jsonfields import Json
from corral_server.gateway.directory import Endpoint
from corral_server.gateway.peers.known import Peers
from corral_server.gateway.queue import Queue
from corral_server.gateway.shares import Shares
from corral_server.gateway.streams import Streams

INTERVAL = 0.5
LINGER = 10.0
SILENCE = 3 * HEARTBEAT


@dataclass
class _Followed:
    key: str
    endpoint: Endpoint
    until: float


class RunnersInUse:
    """``recount(key)`` is called after every word of a runner. ``start`` and ``close`` are called on the event loop."""

    def __init__(self, queue: Queue, peers: Peers, shares: Shares, *, recount: Callable[[str], None]) -> None:
        self._queue = queue
        self._peers = peers
        self._shares = shares
        self._recount = recount
        self._followed: dict[str, _Followed] = {}
        self._streams = Streams("/activity?watch=true", self._heard, silence=SILENCE)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._look()

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._streams.close()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(INTERVAL, self._look)
        now = loop.time()
        for key, line in self._queue.lines() if self._peers.any else ():
            for place in line.places.values():
                if place.listed and (line.waiting or place.in_use):
                    self._followed[place.endpoint.id] = _Followed(key, place.endpoint, now + LINGER)
        for name in [name for name, followed in self._followed.items() if followed.until < now]:
            self._heard(name, None)
            del self._followed[name]
        addresses = {name: (each.endpoint.host, each.endpoint.port) for name, each in self._followed.items()}
        self._streams.follow(addresses)

    def _heard(self, name: str, line: Json | None) -> None:
        """Raises ValueError for a line that makes no sense."""
        activity = Activity.from_json(line) if line is not None else None
        self._shares.heard(name, activity)
        self._recount(self._followed[name].key)
