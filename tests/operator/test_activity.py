"""Streams of activity from runners that come, fall silent, break off and go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from corral_core.activity import Activity
from corral_operator import activity as module
from corral_operator.activity import Streams
from corral_operator.observe import RunnerInfo
from tests.gateway.kube_objects import FACTS
from tests.operator import samples
from tests.support.waiting import auntil


class Runner:
    """A runner of two routes on a port of loopback; what is in ``said`` is told, None ends the stream."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[Activity | None] = asyncio.Queue()
        self.streams = 0
        self.port = 0

    async def activity(self, request: web.Request) -> web.StreamResponse:
        self.streams += 1
        response = web.StreamResponse()
        await response.prepare(request)
        while (activity := await self.said.get()) is not None:
            await response.write(json.dumps(activity.to_json()).encode() + b"\n")
        return response

    async def info(self, request: web.Request) -> web.Response:
        return web.json_response({"facts": FACTS, "parallel": 4, "contextLength": 2048})


class Ears:
    def __init__(self) -> None:
        self.heard: list[Activity | None] = []
        self.told: list[RunnerInfo] = []


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Runner, Ears, Streams]]:
    runner, ears = Runner(), Ears()
    app = web.Application()
    app.add_routes([web.get("/activity", runner.activity), web.get("/info", runner.info)])
    server = web.AppRunner(app, shutdown_timeout=0.1)
    await server.setup()
    site = web.TCPSite(server, "127.0.0.1", 0)
    await site.start()
    port = server.addresses[0][1]
    streams = Streams(
        lambda uid, activity: ears.heard.append(activity), lambda uid, info: ears.told.append(info), port=port
    )
    try:
        yield runner, ears, streams
    finally:
        await streams.close()
        await server.cleanup()


def scenario(run: Callable[[Runner, Ears, Streams], Awaitable[None]]) -> None:
    async def body() -> None:
        async with listening() as (runner, ears, streams):
            streams.follow({"uid-1": "127.0.0.1"})
            await run(runner, ears, streams)

    asyncio.run(asyncio.wait_for(body(), 20))


def test_every_change_is_heard() -> None:
    async def run(runner: Runner, ears: Ears, streams: Streams) -> None:
        for in_flight in (1, 0):
            runner.said.put_nowait(samples.activity(in_flight=in_flight))
        await auntil(lambda: len(ears.heard) == 2)
        assert [activity.in_flight if activity else None for activity in ears.heard] == [1, 0]

    scenario(run)


def test_a_loaded_runner_is_asked_once_what_it_runs() -> None:
    async def run(runner: Runner, ears: Ears, streams: Streams) -> None:
        runner.said.put_nowait(samples.activity(loaded=False))
        await auntil(lambda: ears.heard)
        assert ears.told == []
        for _ in range(2):
            runner.said.put_nowait(samples.activity())
        await auntil(lambda: len(ears.heard) == 3)
        assert [(info.parallel, info.facts.to_json()) for info in ears.told] == [(4, FACTS)]

    scenario(run)


def test_a_stream_that_ends_withdraws_the_activity_and_is_opened_again() -> None:
    async def run(runner: Runner, ears: Ears, streams: Streams) -> None:
        runner.said.put_nowait(samples.activity())
        runner.said.put_nowait(None)
        await auntil(lambda: runner.streams == 2)
        assert ears.heard[1:2] == [None]
        runner.said.put_nowait(samples.activity(in_flight=1))
        await auntil(lambda: ears.heard[-1])

    scenario(run)


def test_a_runner_that_falls_silent_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.1)

    async def run(runner: Runner, ears: Ears, streams: Streams) -> None:
        runner.said.put_nowait(samples.activity())
        await auntil(lambda: ears.heard[-1:] == [None])

    scenario(run)


def test_a_runner_that_is_gone_is_not_followed_any_more() -> None:
    async def run(runner: Runner, ears: Ears, streams: Streams) -> None:
        runner.said.put_nowait(samples.activity())
        await auntil(lambda: ears.heard)
        streams.follow({})
        await auntil(lambda: ears.heard[-1] is None)

    scenario(run)


def test_a_line_that_is_no_activity_counts_as_not_being_able_to_ask() -> None:
    async def run(runner: Runner, ears: Ears, streams: Streams) -> None:
        broken = samples.activity()
        object.__setattr__(broken, "slots", "many")
        runner.said.put_nowait(broken)
        await auntil(lambda: ears.heard[-1:] == [None])

    scenario(run)
