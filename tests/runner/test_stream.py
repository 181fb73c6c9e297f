"""Items on their way from the engine's thread to their readers."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from corral_server.runner.generation import EngineFailed, Finish, Piece
from corral_server.runner.stream import Outbox, Stream, deliver

DONE = Finish(reason="stop", prompt_tokens=1, cached_tokens=0, generated=(1,), prompt_ns=1, generate_ns=1)


async def collected(stream: Stream) -> list[Piece | Finish]:
    async with aclosing(stream.read()) as items:
        return [item async for item in items]


def test_a_reader_gets_what_came_before_it_and_what_comes_while_it_waits() -> None:
    async def run() -> list[Piece | Finish]:
        stream = Stream(asyncio.get_running_loop())
        stream.put(Piece("a"))
        stream.put(Piece("b"))
        reader = asyncio.create_task(collected(stream))
        await asyncio.sleep(0)
        await asyncio.to_thread(deliver, [(stream, Piece("c")), (stream, Piece("d"))])
        await asyncio.to_thread(deliver, [(stream, DONE)])
        return await asyncio.wait_for(reader, 10)

    assert asyncio.run(run()) == [Piece("a"), Piece("b"), Piece("c"), Piece("d"), DONE]


def test_an_error_is_raised_where_it_is_read() -> None:
    async def run() -> None:
        stream = Stream(asyncio.get_running_loop())
        stream.put(EngineFailed("broken"))
        await collected(stream)

    with pytest.raises(EngineFailed, match="broken"):
        asyncio.run(run())


def test_a_stream_of_a_closed_loop_counts_as_left() -> None:
    loop = asyncio.new_event_loop()
    stream = Stream(loop)
    loop.close()
    deliver([(stream, Piece("a"))])
    assert stream.closed


def test_what_a_step_made_leaves_before_the_next_decode_or_the_next_step_or_at_once() -> None:
    async def run() -> list[list[str]]:
        stream = Stream(asyncio.get_running_loop())
        out = Outbox()
        left: list[str] = []
        seen: list[list[str]] = []

        def got(item: Piece | Finish) -> None:
            left.append(item.text if isinstance(item, Piece) else "end")

        async def read() -> None:
            async with aclosing(stream.read()) as items:
                async for item in items:
                    got(item)

        async def look() -> None:
            for _ in range(5):
                await asyncio.sleep(0)
            seen.append(list(left))

        reader = asyncio.create_task(read())
        out.take([(stream, Piece("a"))], more=True)
        await look()
        out.send()
        await look()
        out.take([(stream, Piece("b"))], more=True)
        out.take([(stream, Piece("c"))], more=True)
        await look()
        out.take([(stream, DONE)], more=False)
        await look()
        await asyncio.wait_for(reader, 10)
        return seen

    assert asyncio.run(run()) == [[], ["a"], ["a", "b"], ["a", "b", "c", "end"]]
