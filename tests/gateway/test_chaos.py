"""Random failures: misbehaving runners that come and go, and disconnecting clients; nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter

import pytest

from tests.support.fake_upstream import (
    Behaviour,
    Call,
    close_at_once,
    fake_upstream,
    refuse,
    reply,
    reset_at_once,
    stream,
)
from tests.support.gateway import MemoryDirectory, RunningGateway, endpoint, entry, raw_request, running_gateway
from tests.support.waiting import auntil


async def half_a_chunk(call: Call) -> None:
    await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
    await call.write(b'20\r\n{"half":')
    call.reset()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_request_is_answered_under_random_failures(seed: int) -> None:
    chance = random.Random(seed)
    good: list[Behaviour] = [reply(), stream([b'{"n":1}\n', b'{"n":2}\n']), reply(400, b'{"error":"yours"}')]
    refusals = [refuse(), refuse("draining")]
    bad: list[Behaviour] = [*refusals, reset_at_once, close_at_once, half_a_chunk]
    begun: Counter[object] = Counter()

    async def behave(call: Call) -> None:
        chosen = chance.choice(bad) if chance.random() < 0.25 else chance.choice(good)
        if chosen not in refusals:
            begun[json.loads(call.body)["number"]] += 1
        await chosen(call)

    async with fake_upstream(behave) as one, fake_upstream(behave) as two:
        directory = MemoryDirectory.of(entry("tiny", one.port, two.port, slots=2))
        async with running_gateway(directory) as gateway:
            clients = [asyncio.create_task(_client(gateway, chance, number)) for number in range(150)]
            while not all(client.done() for client in clients):
                found = [endpoint(each.port, chance.randint(0, 3)) for each in (one, two) if chance.random() < 0.8]
                directory.change(endpoints=tuple(found))
                await asyncio.wait(clients, timeout=0.02)
                if chance.random() < 0.3:
                    directory.change(endpoints=(endpoint(one.port, 3), endpoint(two.port, 3)))
            statuses = {client.result() for client in clients}
            assert statuses <= {b"", b"200", b"400", b"500"}, statuses
            assert b"200" in statuses
            queue = gateway.gateway.dispatcher.queue
            await auntil(lambda: (queue.pending, queue.slots_in_use("default/tiny")) == (0, 0))
            await auntil(lambda: not gateway.server.server_state.tasks, what="no task is left")
    assert set(begun.values()) == {1}, "no request is begun twice"
    assert directory.demands == [] or directory.demands[-1][1] == 0


async def _client(gateway: RunningGateway, chance: random.Random, number: int) -> bytes:
    """The status of the answer; empty when the client left before."""
    await asyncio.sleep(chance.random() * 0.3)
    reader, writer = await gateway.connect()
    try:
        writer.write(raw_request("/api/chat", b'{"model":"tiny","number":%d}' % number, "connection: close"))
        if chance.random() < 0.3:
            await asyncio.sleep(chance.random() * 0.1)
            return b""
        head = await reader.readuntil(b"\r\n")
        await reader.read()
        return head.split(b" ")[1]
    finally:
        writer.close()
