"""Many pending requests in the queue of one gateway, then as many open streams: memory of each, and dropped requests.

    python bench/held.py [--count 10000]

Each of the two measurements has its own gateway process; client and runner are simulated in this process. First one
request occupies the only slot of a model, and ``--count`` others are pending. Then there are as many open streams of
another model. The gateway's resident memory is compared with that after a warm-up. Meanwhile new requests to a third
model arrive one by one, each on its own connection. At the end all requests must have complete responses. A stream
needs two open files in the gateway and two here; if the limit on open files is too low, there are as many streams as it
allows, and the output says so. The last line is a JSON object; ``*_kib`` is memory per request or stream in KiB,
``*_next_ms`` the latency of the new requests in milliseconds, from sending to the last byte.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import statistics
import sys
from collections.abc import Awaitable, Iterable
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.gateway_process import GatewayProcess, gateway_process
from bench.held_runner import Asker, Runner
from corral_server.gateway.server import raise_open_file_limit
from tests.support.waiting import auntil

ARRIVALS = 200
AT_A_TIME = 200
"""Connections that are being made."""
PATIENCE = 120.0
"""Seconds that any step may take."""


class Side:
    """The clients' side of the measurement."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.state = gateway.state
        self._port = gateway.port
        self._gate = asyncio.Semaphore(AT_A_TIME)

    async def ask(self, model: str) -> Asker:
        loop = asyncio.get_running_loop()
        async with self._gate:
            _, asker = await loop.create_connection(lambda: Asker(model), "127.0.0.1", self._port)
        return asker

    async def ask_many(self, model: str, count: int) -> list[Asker]:
        return await asyncio.gather(*(self.ask(model) for _ in range(count)))

    async def reach(self, name: str, number: int) -> dict[str, int]:
        """The state when this many wait, or run."""
        return await auntil(lambda: state if (state := self.state())[name] == number else None, PATIENCE, what=name)

    async def arrivals(self) -> list[float]:
        """Seconds of new requests, one after the other."""
        times = []
        for _ in range(ARRIVALS):
            asker = await self.ask("quick")
            if not await asker.ended:
                sys.exit("a new request was not answered")
            times.append(asker.seconds)
        return sorted(times)


async def whole(askers: Iterable[Asker]) -> int:
    """How many got their whole answer."""
    return sum(await _in_time(asyncio.gather(*(each.ended for each in askers))))


async def _in_time(work: Awaitable[list[bool]]) -> list[bool]:
    async with asyncio.timeout(PATIENCE):
        return await work


async def measure(count: int) -> dict[str, object]:
    streams = min(count, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200) // 2)
    if streams < count:
        print(f"the limit of open files allows for {streams} streams of {count}")
    running: set[Runner] = set()
    server = await asyncio.get_running_loop().create_server(lambda: Runner(running), "127.0.0.1", 0, backlog=4096)
    figures: dict[str, object] = {}
    with contextlib.closing(server):
        for name, model, number in (("queue", "one", count), ("stream", "open", streams)):
            with gateway_process(server.sockets[0].getsockname()[1]) as process:
                figures |= await phase(Side(process), name, model, number=number, running=running)
    return figures


async def phase(side: Side, name: str, model: str, *, number: int, running: set[Runner]) -> dict[str, object]:
    """So many requests held, or streamed; then all of them are let go."""
    await side.arrivals()  # also a warm-up
    before = side.state()["kib"]
    idle = await side.arrivals()
    Runner.slow = True
    askers = await side.ask_many(model, number + (name == "queue"))
    state = await side.reach("waiting" if name == "queue" else "in_use", number)
    if name == "stream":
        await asyncio.gather(*(each.begun for each in askers))
    times = await side.arrivals()
    Runner.slow = False
    for each in tuple(running):
        each.finish()
    answered = await whole(askers)
    after = await side.reach("in_use", 0)
    figures: dict[str, object] = {
        f"{name}_held": number,
        f"{name}_kib": round((state["kib"] - before) / number, 1),
        f"{name}_dropped": len(askers) - answered,
        f"{name}_next_ms": {"p50": _ms(statistics.median(times)), "max": _ms(times[-1])},
        f"{name}_next_idle_ms": {"p50": _ms(statistics.median(idle)), "max": _ms(idle[-1])},
    }
    print(f"{name}: {json.dumps(figures)}; afterwards {after}")
    return figures


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    options = parser.parse_args()
    raise_open_file_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(measure(options.count))))


if __name__ == "__main__":
    main()
