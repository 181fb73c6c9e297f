"""Queue limit over HTTP: 512 requests are queued, the next one is rejected, a disconnect admits exactly one."""

from __future__ import annotations

import asyncio
import random

from corral_server.wire.errors import QUEUE_FULL
from tests.support.fake_upstream import fake_upstream
from tests.support.gateway import MemoryDirectory, RunningGateway, endpoint, entry, raw_request, running_gateway
from tests.support.waiting import auntil

REFUSED = f'{{"error":"{QUEUE_FULL}"}}'.encode()

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def ask(gateway: RunningGateway) -> Client:
    reader, writer = await gateway.connect()
    writer.write(raw_request("/api/chat", b'{"model":"tiny"}', "connection: close"))
    return reader, writer


async def answer(client: Client) -> tuple[bytes, bytes]:
    """Status and body."""
    reader, writer = client
    head, _, body = (await asyncio.wait_for(reader.read(), 30)).partition(b"\r\n\r\n")
    writer.close()
    return head.split(b" ")[1], body


async def test_512_requests_are_queued_and_the_513th_is_rejected_after_any_disconnects() -> None:
    chance = random.Random(1)
    async with fake_upstream() as up:
        directory = MemoryDirectory.of(entry("tiny"))
        async with running_gateway(directory) as gateway:
            waiting = [await ask(gateway) for _ in range(512)]
            await gateway.until_pending(512)
            for _ in range(10):
                burst = [await ask(gateway) for _ in range(chance.randint(1, 20))]
                assert {await answer(client) for client in burst} == {(b"503", REFUSED)}
                leaving = chance.randint(1, 20)
                chance.shuffle(waiting)
                for _ in range(leaving):
                    waiting.pop()[1].close()
                await gateway.until_pending(512 - leaving)
                waiting += [await ask(gateway) for _ in range(leaving)]
                await gateway.until_pending(512)
            directory.change(endpoints=(endpoint(up.port, 8),))
            statuses = [status for status, _ in await asyncio.gather(*map(answer, waiting))]
            assert statuses == [b"200"] * 512
            await auntil(lambda: gateway.gateway.dispatcher.queue.slots_in_use("default/tiny") == 0)
    assert len(up.calls) == 512, "requests of disconnected clients are never sent"
    assert up.max_running <= 8


async def test_requests_pending_for_a_slot_count_like_those_pending_for_a_load() -> None:
    async with fake_upstream() as up:
        directory = MemoryDirectory.of(entry("tiny"), entry("busy", up.port, slots=0))
        async with running_gateway(directory, max_queue=4) as gateway:
            cold = [await ask(gateway) for _ in range(2)]
            warm = [asyncio.create_task(gateway.chat("busy")) for _ in range(2)]
            await gateway.until_pending(4)
            assert await answer(await ask(gateway)) == (b"503", REFUSED)
            assert (await gateway.chat("busy")).status_code == 503
            for key in ("default/tiny", "default/busy"):
                directory.change(key, endpoints=(endpoint(up.port, 8),))
            assert [status for status, _ in await asyncio.gather(*map(answer, cold))] == [b"200"] * 2
            assert {done.status_code for done in await asyncio.gather(*warm)} == {200}
