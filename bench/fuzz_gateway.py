"""Fuzzes the gateway's HTTP, in this process and over real sockets, and says how many cases found nothing.

    python bench/fuzz_gateway.py [--cases 1000000] [--sockets 2000] [--seed 1] [--first 0]

What holds after each case is told in tests/support/fuzz_gateway.py; over sockets it is that nothing is answered with a
5xx, that nothing is left over, and that the gateway serves the next client. A case follows from seed and number, so
that the one which fails is run again with ``--first``. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import sys
import time
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.fuzz_gateway import Fuzz, Wrong
from tests.support.fuzz_inputs import case
from tests.support.gateway import Running, gateway_over
from tests.support.waiting import auntil

REPORT_EVERY = 50_000
WARM = 20_000
"""Cases before memory counts: caches fill, and the allocator takes what it will hold."""


async def in_process(seed: int, first: int, *, cases: int) -> dict[str, object]:
    fuzz = Fuzz()
    fuzz.start()
    began, warm = time.monotonic(), 0
    try:
        for number in range(first, first + cases):
            try:
                await fuzz.run(seed, number)
            except Wrong as error:
                sys.exit(f"seed {seed} case {number}: {error}\n{case(seed, number)!r}")
            if number - first == WARM:
                warm = _memory()
            if (number - first + 1) % REPORT_EVERY == 0:
                print(f"{number - first + 1} cases, {fuzz.begun} sent on, {_memory()} KiB", flush=True)
    finally:
        fuzz.close()
    seconds = time.monotonic() - began
    return {
        "cases": cases,
        "cases_per_second": round(cases / seconds),
        "sent_on": fuzz.begun,
        "answered": fuzz.answered,
        "refused": fuzz.refused,
        "growth_kib": _memory() - warm if warm else None,
    }


async def over_sockets(seed: int, first: int, *, cases: int) -> dict[str, object]:
    async with gateway_over() as (up, gateway):
        for number in range(first, first + cases):
            said = await _send(gateway, case(seed, number), patient=number % 2 == 0)
            wrong = b"HTTP/1.1 5" in said.replace(b"HTTP/1.1 501", b"") and b"account unavailable" not in said
            if wrong:
                sys.exit(f"seed {seed} case {number} over a socket: {said[:500]!r}\n{case(seed, number)!r}")
        await auntil(lambda: not gateway.server.server_state.connections, what="all connections are gone")
        await auntil(lambda: not gateway.server.server_state.tasks, what="all tasks are gone")
        await auntil(lambda: gateway.gateway.dispatcher.queue.in_use("default/tiny") == 0, what="all slots are free")
        if (await gateway.chat()).status_code != 200:
            sys.exit("the next request is not served")
        return {"cases": cases, "sent_on": len(up.calls)}


async def _send(gateway: Running, pieces: list[bytes], *, patient: bool) -> bytes:
    """``patient``: the client does not end its side at once, which would end what waits for the runner."""
    reader, writer = await gateway.connect()
    said = b""
    with contextlib.suppress(ConnectionError, RuntimeError):  # RuntimeError: the gateway has closed, says uvloop
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        with contextlib.suppress(TimeoutError):
            said = await asyncio.wait_for(reader.read(65536), 0.05) if patient else b""
        writer.write_eof()
        said += await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return said


def _memory() -> int:
    """The process's memory now, in KiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the gateway's HTTP.")
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--sockets", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    chosen = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = {"in_process": runner.run(in_process(chosen.seed, chosen.first, cases=chosen.cases))}
        print(json.dumps(found), flush=True)
        found["over_sockets"] = runner.run(over_sockets(chosen.seed, chosen.first, cases=chosen.sockets))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
