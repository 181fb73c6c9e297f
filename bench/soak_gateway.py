"""Mixed load on one gateway while models change: memory, tasks, sockets and slots that are left.

    python bench/soak_gateway.py [--seconds 1800] [--clients 24]

Clients send whole and streamed requests, several on one connection, or several at once. They disconnect before or
within the response, read slowly, and send invalid HTTP or JSON. Runners answer and stream, and sometimes are not ready,
break off, reset or fail. The gateway is its own process. Its resident memory is read every second, and the slope over
the last two thirds is printed. When the load has ended and the models are removed, nothing may be left. The last line
is a JSON object with ``slope_kib_per_minute`` and ``left``, which names what is left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.gateway_process import MOVING, GatewayProcess, gateway_process
from tests.support.fake_upstream import (
    Behaviour,
    Call,
    close_at_once,
    fake_upstream,
    refuse,
    reply,
    reset_at_once,
)
from tests.support.waiting import auntil

SEED = 7
PAUSE = 0.05
"""Seconds that a client waits at most between two requests."""
PATIENCE = 5.0
"""Seconds that a client waits for its answer before it leaves."""
LINE = b'{"message":{"content":" token"},"done":false}\n'


async def _stream(call: Call) -> None:
    await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
    for _ in range(call.number % 25):
        await call.chunk(LINE)
        await asyncio.sleep(0.001 * (call.number % 7))
    await call.chunk(b'{"done":true}\n')
    await call.write(b"0\r\n\r\n")


async def _break_off(call: Call) -> None:
    await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
    await call.chunk(LINE * 3)
    call.reset()


RUNNER: tuple[tuple[Behaviour, int], ...] = (
    (_stream, 60),
    (reply(), 30),
    (reply(200, b'{"embedding":[%b]}' % (b"0.1," * 100_000)), 2),
    (reply(500, b'{"error":"it failed"}'), 3),
    (refuse("loading"), 2),
    (_break_off, 2),
    (reset_at_once, 1),
    (close_at_once, 1),
)


Kind = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[object, object, str]]


class Clients:
    """``outcomes`` counts what clients did and got."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._dice = random.Random(seed)
        self.outcomes: Counter[str] = Counter()

    async def run(self, until: float) -> None:
        kinds = (self._ask, self._ask_often, self._ask_ahead, self._leave_early, self._leave_late, self._dawdle)
        while time.monotonic() < until:
            kind = self._dice.choice((*kinds, self._nonsense, self._no_json))
            try:
                async with asyncio.timeout(PATIENCE):
                    outcome = await self._connected(kind)
            except TimeoutError:
                outcome = "waited too long"
            except (OSError, asyncio.IncompleteReadError):
                outcome = "cut off"
            self.outcomes[f"{kind.__name__.strip('_')}: {outcome}"] += 1
            await asyncio.sleep(self._dice.uniform(0, PAUSE))

    async def _connected(self, kind: Kind) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            return await kind(reader, writer)
        finally:
            writer.transport.abort()

    def _request(self) -> bytes:
        names = (*MOVING, *MOVING, "quick", "one", "open", "unknown")
        body = json.dumps({"model": self._dice.choice(names), "messages": [{"role": "user", "content": "Hi"}]}).encode()
        path = self._dice.choice((b"/api/chat", b"/v1/chat/completions", b"/v1/messages"))
        return b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (path, len(body), body)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        writer.write(self._request())
        return await _answer(reader)

    async def _ask_often(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        for _ in range(4):
            await self._ask(reader, writer)
        return await self._ask(reader, writer)

    async def _ask_ahead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        writer.write(self._request() + self._request() + self._request())
        for _ in range(2):
            await _answer(reader)
        return await _answer(reader)

    async def _leave_early(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        writer.write(self._request())
        await asyncio.sleep(self._dice.uniform(0, 0.02))
        if self._dice.random() < 0.5:
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return "left"

    async def _leave_late(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        writer.write(self._request())
        await reader.readuntil(b"\r\n\r\n")
        return "left"

    async def _dawdle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        writer.write(self._request())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                while True:
                    await reader.read(100)
                    await asyncio.sleep(0.01)
        return "left"

    async def _nonsense(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        writer.write(self._dice.randbytes(self._dice.randint(1, 500)) + b"\r\n\r\n")
        return (await reader.read(12))[9:].decode("latin-1")

    async def _no_json(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        writer.write(b"POST /api/chat HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\n{{]]")
        return await _answer(reader)


async def _answer(reader: asyncio.StreamReader) -> str:
    """The status of the next answer, which is read to its end."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"content-length: " in head:
        await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    else:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
    return head[9:12].decode()


async def soak(seconds: float, clients: int) -> dict[str, object]:
    dice = random.Random(SEED)
    behaviours, weights = zip(*RUNNER, strict=True)

    calls: list[Call] = []

    async def behave(call: Call) -> None:
        calls.clear()
        call.number = dice.randint(0, 1000)
        behaviour: Behaviour = dice.choices(behaviours, weights)[0]
        await behaviour(call)

    async with fake_upstream(behave) as upstream:
        upstream.calls = calls
        with gateway_process(upstream.port, "--moving", str(SEED)) as gateway:
            before = gateway.state()
            load = Clients(gateway.port, SEED)
            samples = await _load(gateway, load, seconds, clients=clients)
            left = await _left(gateway, before)
    return {
        "seconds": seconds,
        "requests": load.outcomes.total(),
        "outcomes": dict(sorted(load.outcomes.items())),
        "kib": {"first": samples[0], "warm": samples[len(samples) // 3], "last": samples[-1]},
        "slope_kib_per_minute": round(slope(samples[len(samples) // 3 :]) * 60, 1),
        "left": left,
    }


async def _load(gateway: GatewayProcess, load: Clients, seconds: float, *, clients: int) -> list[int]:
    """Resident memory in KiB, second by second."""
    end, samples = time.monotonic() + seconds, []
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(load.run(end))
        while time.monotonic() < end:
            samples.append(gateway.state()["kib"])
            if len(samples) % 60 == 0:
                print(f"{len(samples):>6} s {load.outcomes.total():>8} requests {samples[-1]:>8} KiB", flush=True)
            await asyncio.sleep(1)
    return samples


async def _left(gateway: GatewayProcess, before: dict[str, int]) -> dict[str, int]:
    """What there is more of than at the beginning, once idle connections to runners have had time to be closed."""
    gateway.state("rest")
    watched = [name for name in before if name != "kib"]
    now = before

    def nothing() -> bool:
        nonlocal now
        now = gateway.state()
        return all(now[name] <= before[name] for name in watched)

    with contextlib.suppress(AssertionError):
        await auntil(nothing, 20.0)
    return {name: now[name] - before[name] for name in watched if now[name] > before[name]}


def slope(values: list[int]) -> float:
    """Of the straight line that fits best, for each step."""
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    spread = sum((place - middle) ** 2 for place in range(len(values)))
    return sum((place - middle) * (value - mean) for place, value in enumerate(values)) / spread if spread else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--clients", type=int, default=24)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(soak(options.seconds, options.clients))))


if __name__ == "__main__":
    main()
