"""Delivery of items from the engine's thread to their readers."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from corral_server.runner.engine.generation import GenerationResult
from corral_server.runner.engine.stream import DeliveryBuffer, GenerationStream, deliver
from corral_server.runner.llama.errors import EngineFailed
from corral_server.runner.memory.budget import RequestMemory, Reservation
from corral_server.runner.sampling.text import TextChunk, TokenLogprob

RESULT = GenerationResult(reason="stop", prompt_tokens=1, cached_tokens=0, tokens=(1,), prefill_ns=1, decode_ns=1)


@pytest.fixture
async def stream() -> GenerationStream:
    return GenerationStream(asyncio.get_running_loop(), Reservation(RequestMemory()))


async def collect(stream: GenerationStream) -> list[TextChunk | GenerationResult]:
    async with aclosing(stream.read()) as items:
        return [item async for item in items]


async def test_a_reader_gets_earlier_items_and_those_that_arrive_while_it_waits(stream: GenerationStream) -> None:
    stream.put(TextChunk("a"))
    stream.put(TextChunk("b"))
    reader = asyncio.create_task(collect(stream))
    await asyncio.sleep(0)
    await asyncio.to_thread(deliver, [(stream, TextChunk("c")), (stream, TextChunk("d"))])
    await asyncio.to_thread(deliver, [(stream, RESULT)])
    assert await asyncio.wait_for(reader, 10) == [*map(TextChunk, "abcd"), RESULT]


async def test_an_error_is_raised_in_the_reader(stream: GenerationStream) -> None:
    stream.put(EngineFailed("broken"))
    with pytest.raises(EngineFailed, match="broken"):
        await collect(stream)


def test_a_stream_of_a_closed_event_loop_is_closed() -> None:
    loop = asyncio.new_event_loop()
    stream = GenerationStream(loop, Reservation(RequestMemory()))
    loop.close()
    deliver([(stream, TextChunk("a"))])
    assert stream.closed


async def test_items_of_a_step_are_delivered_at_the_next_decode_or_step_or_at_the_end(stream: GenerationStream) -> None:
    buffer = DeliveryBuffer()
    received: list[str] = []
    seen: list[list[str]] = []

    async def read() -> None:
        async with aclosing(stream.read()) as items:
            async for item in items:
                received.append(item.text if isinstance(item, TextChunk) else "end")  # noqa: PERF401

    async def look() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        seen.append(list(received))

    reader = asyncio.create_task(read())
    buffer.add([(stream, TextChunk("a"))], more=True)
    await look()
    buffer.flush()
    await look()
    buffer.add([(stream, TextChunk("b"))], more=True)
    buffer.add([(stream, TextChunk("c"))], more=True)
    await look()
    buffer.add([(stream, RESULT)], more=False)
    await look()
    await asyncio.wait_for(reader, 10)
    assert seen == [[], ["a"], ["a", "b"], ["a", "b", "c", "end"]]


async def test_output_that_is_not_read_fails_at_the_memory_limit() -> None:
    memory = RequestMemory(1 << 20)
    stream = GenerationStream(asyncio.get_running_loop(), Reservation(memory))
    chunk = TextChunk("a", (TokenLogprob("a", -1.0, b"a", (TokenLogprob("b", -2.0, b"b"),) * 20),))
    for _ in range(1000):
        stream.put(chunk)
    assert stream.closed, "the engine drops the generation"
    assert memory.used <= memory.total
    with pytest.raises(EngineFailed, match="not read fast enough"):
        await collect(stream)


async def test_output_that_is_read_takes_no_memory() -> None:
    memory = RequestMemory(1 << 20)
    reservation = Reservation(memory)
    stream = GenerationStream(asyncio.get_running_loop(), reservation)
    items = stream.read()
    for _ in range(5000):
        stream.put(TextChunk("a" * 50))
        await anext(items)
    assert memory.used < memory.total // 2
    reservation.release()
    assert memory.used == 0
