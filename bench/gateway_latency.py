"""Latency that a proxy adds to single requests, at a rate that leaves it mostly idle.

Every few milliseconds one request goes to one of the sides, in turn, on a persistent connection. All sides therefore
see the same disturbances of the machine, and the result is the difference of their quantiles.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import cast

import uvloop

BODY = b'{"model":"tiny","messages":[{"role":"user","content":"Why is the sky blue?"}],"stream":false}'
REQUEST = b"POST /api/chat HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
WARM_UP = 100
"""Requests to each side that do not count."""


class Caller(asyncio.Protocol):
    """One kept connection, one request at a time; an answer is one piece with a JSON object at its end."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._since = 0.0
        self._answer = b""
        self.seconds: list[float] = []
        self.free = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self) -> None:
        assert self._transport is not None
        self.free, self._answer, self._since = False, b"", time.perf_counter()
        self._transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if self._answer.endswith(b"}"):
            self.seconds.append(time.perf_counter() - self._since)
            self.free = self._answer.startswith(b"HTTP/1.1 200")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def _measure(ports: Mapping[str, int], rate: int, seconds: float) -> dict[str, list[float]]:
    loop = asyncio.get_running_loop()
    callers: dict[str, Caller] = {}
    for name, port in ports.items():
        _, callers[name] = await loop.create_connection(Caller, "127.0.0.1", port)
    step, begun = 1 / rate / len(ports), loop.time()
    for number in range(int(seconds * rate)):
        for place, caller in enumerate(callers.values()):
            await asyncio.sleep(max(0.0, begun + (number * len(ports) + place) * step - loop.time()))
            if caller.free:
                caller.ask()
    await asyncio.sleep(1)
    for caller in callers.values():
        caller.close()
    return {name: sorted(caller.seconds[WARM_UP:]) for name, caller in callers.items()}


def latency(ports: Mapping[str, int], *, rate: int, seconds: float) -> dict[str, dict[str, float]]:
    """p50 and p99 in milliseconds by side, at so many requests a second to each."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        measured = runner.run(_measure(ports, rate, seconds))
    return {
        name: {f"p{share}": times[len(times) * share // 100] * 1000 for share in (50, 99)}
        for name, times in measured.items()
    }
