"""Requests for a longer context than the runners of their Model have, with ``contextPolicy: Grow``."""

from __future__ import annotations

import asyncio

import pytest

from corral_server.gateway.bodies.json_body import requested_context
from tests.support.fake_upstream import fake_upstream
from tests.support.gateway import MemoryDirectory, endpoint, entry, running_gateway

LONG: object = {"num_ctx": 9000}


def growing(port: int, *, longest: int = 16384) -> MemoryDirectory:
    """Return a directory with a Model whose runner has 4096 tokens and can grow."""
    directory = MemoryDirectory.of(entry("tiny", port))
    directory.change(context_length=4096, max_context_length=longest)
    return directory


async def test_a_request_waits_for_the_context_and_others_do_not() -> None:
    async with fake_upstream() as up:
        directory = growing(up.port)
        async with running_gateway(directory) as gateway:
            held = asyncio.create_task(gateway.chat(options=LONG))
            await gateway.until_pending(1)
            assert (await gateway.chat()).status_code == 200
            assert (await gateway.chat(options={"num_ctx": 4096})).status_code == 200
            assert len(up.calls) == 2
            assert directory.contexts == [("default/tiny", 9000)]
            directory.change(context_length=16384)
            assert (await held).status_code == 200
            assert directory.contexts[-1] == ("default/tiny", 0)
    assert directory.demands[-1][1] == 0


async def test_a_cold_model_is_asked_for_the_context_until_a_runner_has_it() -> None:
    async with fake_upstream() as up:
        directory = growing(up.port)
        directory.change(endpoints=())
        async with running_gateway(directory) as gateway:
            held = asyncio.create_task(gateway.chat(options=LONG))
            await gateway.until_pending(1)
            directory.change(context_length=16384)  # of the runner that is to start
            assert directory.contexts == [("default/tiny", 9000)]
            directory.change(endpoints=(endpoint(up.port),))
            assert (await held).status_code == 200


async def test_a_context_beyond_the_longest_asks_for_the_longest() -> None:
    async with fake_upstream() as up:
        directory = growing(up.port, longest=8192)
        async with running_gateway(directory) as gateway:
            held = asyncio.create_task(gateway.chat(options=LONG))
            await gateway.until_pending(1)
            assert directory.contexts == [("default/tiny", 8192)]
            directory.change(context_length=8192)
            assert (await held).status_code == 200
            assert (await gateway.chat(options=LONG)).status_code == 200


async def test_a_held_request_is_served_when_the_context_can_no_longer_grow() -> None:
    async with fake_upstream() as up:
        directory = growing(up.port)
        async with running_gateway(directory) as gateway:
            held = asyncio.create_task(gateway.chat(options=LONG))
            await gateway.until_pending(1)
            directory.change(max_context_length=4096)
            assert (await held).status_code == 200


async def test_with_the_policy_fixed_nothing_is_held() -> None:
    async with fake_upstream() as up:
        directory = growing(up.port, longest=0)
        async with running_gateway(directory) as gateway:
            assert (await gateway.chat(options=LONG)).status_code == 200
    assert directory.contexts == []


async def test_a_held_request_leaves_with_its_client_and_with_its_model() -> None:
    async with fake_upstream() as up:
        directory = growing(up.port)
        async with running_gateway(directory) as gateway:
            gone = asyncio.create_task(gateway.chat(options=LONG))
            await gateway.until_pending(1)
            gone.cancel()
            await gateway.until_pending(0)
            held = asyncio.create_task(gateway.chat(options=LONG))
            await gateway.until_pending(1)
            directory.remove()
            assert (await held).status_code == 404


async def test_held_requests_count_for_the_queue_limit() -> None:
    async with fake_upstream() as up:
        directory = growing(up.port)
        async with running_gateway(directory, max_queue=1) as gateway:
            held = asyncio.create_task(gateway.chat(options=LONG))
            await gateway.until_pending(1)
            assert (await gateway.chat(options=LONG)).status_code == 503
            directory.change(context_length=16384)
            assert (await held).status_code == 200


@pytest.mark.parametrize(
    ("options", "length"),
    [
        ({"num_ctx": 8192}, 8192),
        ({"num_ctx": 5000.5}, 5000),
        ({"num_ctx": 10**40}, 2**31 - 1),
        ({"num_ctx": -5}, 0),
        ({"num_ctx": True}, 0),
        ({"num_ctx": "8192"}, 0),
        ([], 0),
        (None, 0),
    ],
)
def test_the_context_of_a_request(options: object, length: int) -> None:
    assert requested_context("/api/chat", {"options": options}) == length
    assert requested_context("/v1/chat/completions", {"options": options}) == 0
