"""Fuzz the gateway's HTTP server, in this process and over real sockets, and count the cases without a finding.

    python bench/fuzz_gateway.py [--cases 1000000] [--sockets 2000] [--seed 1] [--first 0]

``tests/support/fuzz_gateway.py`` describes what is checked after each case. Over sockets, no response may be a 5xx,
nothing may be left over, and the gateway must serve the next client. A case is determined by seed and number, so that a
failing one can be repeated with ``--first``. The last line is a JSON object.
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

from tests.support.fuzz_gateway import GatewayFuzzer, InvariantViolated
from tests.support.fuzz_inputs import fuzz_case
from tests.support.gateway import RunningGateway, gateway_with_upstream
from tests.support.waiting import auntil

REPORT_EVERY = 50_000
WARM = 20_000
"""Cases before memory counts: caches fill, and the allocator takes what it will hold."""


async def in_process(seed: int, first: int, *, cases: int) -> dict[str, object]:
    fuzz = GatewayFuzzer()
    fuzz.start()
    began, warm = time.monotonic(), 0
    try:
        for number in range(first, first + cases):
            try:
                await fuzz.run(seed, number)
            except InvariantViolated as error:
                sys.exit(f"seed {seed} case {number}: {error}\n{fuzz_case(seed, number)!r}")
            if number - first == WARM:
                warm = _memory()
            if (number - first + 1) % REPORT_EVERY == 0:
                print(f"{number - first + 1} cases, {fuzz.forwarded} sent on, {_memory()} KiB", flush=True)
    finally:
        await fuzz.close()
    seconds = time.monotonic() - began
    return {
        "cases": cases,
        "cases_per_second": round(cases / seconds),
        "sent_on": fuzz.forwarded,
        "answered": fuzz.answered,
        "refused": fuzz.rejected,
        "growth_kib": _memory() - warm if warm else None,
    }


async def over_sockets(seed: int, first: int, *, cases: int) -> dict[str, object]:
    async with gateway_with_upstream() as (up, gateway):
        for number in range(first, first + cases):
            said = await _send(gateway, fuzz_case(seed, number), patient=number % 2 == 0)
            wrong = b"HTTP/1.1 5" in said.replace(b"HTTP/1.1 501", b"") and b"account unavailable" not in said
            if wrong:
                sys.exit(f"seed {seed} case {number} over a socket: {said[:500]!r}\n{fuzz_case(seed, number)!r}")
        await auntil(lambda: not gateway.server.server_state.connections, what="all connections are gone")
        await auntil(lambda: not gateway.server.server_state.tasks, what="all tasks are gone")
        await auntil(
            lambda: gateway.gateway.dispatcher.queue.slots_in_use("default/tiny") == 0, what="all slots are free"
        )
        if (await gateway.chat()).status_code != 200:
            sys.exit("the next request is not served")
        return {"cases": cases, "sent_on": len(up.calls)}


async def _send(gateway: RunningGateway, pieces: list[bytes], *, patient: bool) -> bytes:
    """Send the pieces. A ``patient`` client does not half-close at once, which would cancel its pending request."""
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
