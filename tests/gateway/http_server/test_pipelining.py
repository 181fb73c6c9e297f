"""Pipelined requests of all sizes, framed and split at random: each is answered, in order."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.support.fake_upstream import Call, reply
from tests.support.gateway import gateway_with_upstream, raw_request

SIZES = (0, 1, 1_000, 60_000, 70_000, 300_000)


def request(chance: random.Random, number: int) -> bytes:
    body = b'{"model":"tiny","number":%d,"pad":"%b"}' % (number, b"x" * chance.choice(SIZES))
    if chance.random() < 0.5:
        return raw_request("/api/chat", body)
    chunks: list[bytes] = []
    at = 0
    while at < len(body):
        size = chance.choice((1, 7, 500, 20_000, 100_000)) if len(chunks) < 50 else len(body)
        chunks.append(body[at : at + size])
        at += size
    framed = b"".join(b"%x;n=%d\r\n%b\r\n" % (len(chunk), number, chunk) for chunk in chunks)
    head = b"POST /api/chat HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + framed + b"0\r\nx-late: 1\r\n\r\n"


async def send(chance: random.Random, writer: asyncio.StreamWriter, data: bytes) -> None:
    at = 0
    while at < len(data):
        size = chance.choice((100, 5_000, 65_536, 300_000, 2_000_000))
        writer.write(data[at : at + size])
        await writer.drain()
        at += size
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(6))
async def test_pipelined_requests_of_any_size_and_framing_are_answered_in_order(seed: int) -> None:
    chance = random.Random(seed)

    async def echo(call: Call) -> None:
        number = call.body.partition(b'"number":')[2].partition(b",")[0]
        await asyncio.sleep(chance.random() * 0.005)
        await reply(body=b'{"number":%b,"size":%d}' % (number, len(call.body)))(call)

    async with gateway_with_upstream(echo) as (up, gateway):
        reader, writer = await gateway.connect()
        data = [request(chance, number) for number in range(40)]
        sending = asyncio.create_task(send(chance, writer, b"".join(data)))
        for number in range(40):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            assert head.startswith(b"HTTP/1.1 200 "), (number, head)
            body = await reader.readuntil(b"}")
            assert body.startswith(b'{"number":%d,' % number)
        await sending
        writer.close()
    assert len(up.calls) == 40
