from __future__ import annotations

import asyncio

from corral_server.system.lines import LIMIT, lines


def read(*pieces: bytes) -> list[str]:
    async def collect() -> list[str]:
        stream = asyncio.StreamReader()
        for piece in pieces:
            stream.feed_data(piece)
        stream.feed_eof()
        return [line async for line in lines(stream)]

    return asyncio.run(collect())


def test_lines_are_whole_whatever_the_chunks() -> None:
    assert read(b"one\ntw", b"o\n\nthr", b"ee") == ["one", "two", "three"]


def test_invalid_utf8_is_replaced() -> None:
    assert read(b"a\xff\n") == ["a\ufffd"]


def test_an_endless_line_is_cut_and_the_next_one_is_whole() -> None:
    long = b"x" * (LIMIT * 20)
    assert read(long, b"\nnext\n") == ["x" * LIMIT, "next"]
