"""Follower of the status streams of the runners in use, so that several gateways share their slots.

Active only while there are peers: a single gateway knows the requests that it sends. A runner is followed from the
first refresh that finds requests running on it or pending for its model until ``LINGER`` seconds after the last one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from corral_core.base.clock import steady_time
from corral_core.base.json_fields import JsonObject
from corral_core.contracts.runner_status import HEARTBEAT_INTERVAL, MAX_STATUS_BYTES, RunnerStatus
from corral_server.gateway.directory.directory import Endpoint
from corral_server.gateway.peers.peer_usage import Peers
from corral_server.gateway.queueing.queue import RequestQueue
from corral_server.gateway.queueing.slot_shares import SlotShares
from corral_server.gateway.upstream.json_lines import JsonLineStreams, Source

REFRESH_INTERVAL = 0.5
LINGER = 10.0
STREAM_TIMEOUT = 3 * HEARTBEAT_INTERVAL


@dataclass
class _Followed:
    key: str
    endpoint: Endpoint
    until: float


class RunnerStatusFollower:
    """``on_status(key)`` is called after every status of a runner. ``start`` and ``close`` run on the event loop."""

    def __init__(
        self, queue: RequestQueue, peers: Peers, shares: SlotShares, *, on_status: Callable[[str], None]
    ) -> None:
        self._queue = queue
        self._peers = peers
        self._shares = shares
        self._on_status = on_status
        self._followed: dict[str, _Followed] = {}
        self._streams = JsonLineStreams(self._received, read_timeout=STREAM_TIMEOUT)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._refresh()

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._streams.close()

    def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(REFRESH_INTERVAL, self._refresh)
        now = loop.time()
        for key, queue in self._queue.model_queues() if self._peers.has_peers else ():
            for state in queue.endpoints.values():
                if state.listed and (queue.pending or state.in_use):
                    self._followed[state.endpoint.id] = _Followed(key, state.endpoint, now + LINGER)
        for name in [name for name, followed in self._followed.items() if followed.until < now]:
            self._received(name, None)
            del self._followed[name]
        self._streams.follow({name: _source(each.endpoint) for name, each in self._followed.items()})

    def _received(self, name: str, line: JsonObject | None) -> None:
        """Raises ValueError for an invalid line."""
        status = RunnerStatus.from_json(line, steady_time()) if line is not None else None
        self._shares.update(name, status)
        self._on_status(self._followed[name].key)


def _source(endpoint: Endpoint) -> Source:
    path, model = "/activity?watch=true", endpoint.model
    return Source(endpoint.host, endpoint.port, path, model=model, line_limit=MAX_STATUS_BYTES)
