"""``/ui/events``: events after changes, for the Models that the key sees, within limits."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from corral_core.base.process_metrics import build_version
from corral_server.gateway.directory.directory import ObservedState
from corral_server.gateway.ui import event_streams, page
from tests.gateway.test_keys import ALICE, BOB, bearer, key_file
from tests.support.fake_upstream import fake_upstream
from tests.support.gateway import MemoryDirectory, RunningGateway, entry, raw_request, running_gateway
from tests.support.waiting import auntil

Event = dict[str, Any]


class Events:
    """The events of an open stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def block(self) -> list[str]:
        """Return the lines of the next event or comment. Raises StopAsyncIteration at the end of the stream."""
        lines: list[str] = []
        async with asyncio.timeout(60):
            while line := await anext(self._lines):
                lines.append(line)
        return lines

    async def next(self) -> Event:
        """Return the data of the next event."""
        while True:
            lines = await self.block()
            if lines != [":"]:
                name, data = lines
                assert name == "event: models"
                event: Event = json.loads(data.removeprefix("data: "))
                return event

    async def names(self) -> list[str]:
        return [model["name"] for model in (await self.next())["models"]]

    async def ended(self) -> bool:
        """Read to the end, which must be that of a whole response."""
        with contextlib.suppress(StopAsyncIteration):
            while True:
                await self.block()
        return True


@asynccontextmanager
async def open_events(gateway: RunningGateway, key: str | None = None) -> AsyncIterator[Events]:
    headers = bearer(key) if key is not None else {}
    async with gateway.http.stream("GET", "/ui/events", headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        yield Events(response)


def open_streams(gateway: RunningGateway) -> int:
    found = gateway.gateway.page
    assert found is not None
    return found.streams.count


async def test_the_first_event_has_all_models_and_the_version() -> None:
    async with running_gateway(MemoryDirectory.of(entry("tiny"), entry("big"))) as gateway:
        async with open_events(gateway) as events:
            assert events.response.headers["content-type"] == "text/event-stream"
            assert events.response.headers["cache-control"] == "no-store"
            event = await events.next()
        assert event["version"] == build_version()
        assert [model["name"] for model in event["models"]] == ["tiny:latest", "big:latest"]


async def test_a_change_follows_and_an_unchanged_state_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "COMMENT_INTERVAL", 1.2)
    directory = MemoryDirectory.of(entry("tiny"))
    async with running_gateway(directory) as gateway, open_events(gateway) as events:
        assert (await events.next())["models"][0]["phase"] == "Idle"
        assert await events.block() == [":"], "without a change only comments follow"
        directory.states["default/tiny"] = ObservedState("Loading", "a runner starts", replicas=1)
        model = (await events.next())["models"][0]
        assert (model["phase"], model["reason"], model["replicas"]) == ("Loading", "a runner starts", 1)


async def test_only_the_models_of_the_key_are_sent(tmp_path: Path) -> None:
    directory = MemoryDirectory.of(entry("tiny"), entry("big"))
    keys = key_file(tmp_path, alice={"models": ["ti*"]})
    async with (
        running_gateway(directory, keys_file=keys) as gateway,
        open_events(gateway, ALICE) as alice,
        open_events(gateway, BOB) as bob,
    ):
        assert await alice.names() == ["tiny:latest"]
        assert sorted(await bob.names()) == ["big:latest", "tiny:latest"]
        directory.put(entry("big-too"))
        directory.put(entry("tiny-too"))
        assert await alice.names() == ["tiny:latest", "tiny-too:latest"]


async def test_a_stream_ends_when_its_key_is_no_longer_valid(tmp_path: Path) -> None:
    directory = MemoryDirectory.of(entry("tiny"))
    async with (
        running_gateway(directory, keys_file=key_file(tmp_path)) as gateway,
        open_events(gateway, ALICE) as alice,
        open_events(gateway, BOB) as bob,
    ):
        await alice.next()
        await bob.next()
        key_file(tmp_path, alice={"models": ["other"]})

        async def reloaded() -> bool:
            tags = await gateway.http.get("/api/tags", headers=bearer(ALICE))
            return not tags.json()["models"]

        await auntil(reloaded, 60, what="the keys are read again")
        assert await alice.ended()
        directory.put(entry("big"))
        assert await bob.names() == ["tiny:latest", "big:latest"]


async def test_a_foreign_origin_is_refused() -> None:
    async with running_gateway(MemoryDirectory.of(entry("tiny"))) as gateway:
        answer = await gateway.http.get("/ui/events", headers={"origin": "https://evil.example"})
        assert answer.status_code == 403


async def test_streams_are_limited_and_a_closed_one_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "MAX_STREAMS", 2)
    async with running_gateway(MemoryDirectory.of(entry("tiny"))) as gateway:
        async with open_events(gateway), open_events(gateway):
            refused = await gateway.http.get("/ui/events")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
            assert "too many pages" in refused.json()["error"]
        await auntil(lambda: open_streams(gateway) == 0, 60, what="the streams are closed")
        async with open_events(gateway) as events:
            assert await events.names() == ["tiny:latest"]


async def test_one_key_cannot_take_all_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "MAX_STREAMS_OF_KEY", 1)
    async with (
        running_gateway(MemoryDirectory.of(entry("tiny")), keys_file=key_file(tmp_path)) as gateway,
        open_events(gateway, ALICE),
        open_events(gateway, BOB),
    ):
        assert (await gateway.http.get("/ui/events", headers=bearer(ALICE))).status_code == 503


async def test_streams_end_at_a_shutdown() -> None:
    async with running_gateway(MemoryDirectory.of(entry("tiny"))) as gateway, open_events(gateway) as events:
        await events.next()
        gateway.server.should_exit = True
        assert await events.ended()


async def test_nothing_runs_without_an_open_page() -> None:
    async with fake_upstream() as upstream:
        directory = MemoryDirectory.of(entry("tiny", upstream.port))
        async with running_gateway(directory) as gateway:
            before = {task.get_name() for task in asyncio.all_tasks()}
            async with open_events(gateway) as events:
                await events.next()
                await auntil(lambda: upstream.calls, 60, what="the runner is followed")
                assert "events of pages" in {task.get_name() for task in asyncio.all_tasks()}

            def settled() -> bool:
                names = {task.get_name() for task in asyncio.all_tasks()}
                return not any(name.startswith(("stream of", "events of")) for name in names - before)

            await auntil(settled, 60, what="the tasks have ended")
    assert upstream.calls[0].path == "/activity?watch=true&interval=1"


async def test_a_client_that_does_not_read_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "SLOW_READER", 0.5)
    long = ObservedState("Loading", "x" * 4_000_000)
    directory = MemoryDirectory.of(entry("tiny"))
    directory.states["default/tiny"] = long
    async with running_gateway(directory) as gateway:
        _, writer = await gateway.connect()
        try:
            writer.write(raw_request("/ui/events", b"", method="GET"))
            await auntil(lambda: open_streams(gateway) == 1, 60, what="the stream is open")

            def ended() -> bool:
                before = directory.states["default/tiny"]
                directory.states["default/tiny"] = replace(before, replicas=before.replicas + 1)
                return open_streams(gateway) == 0 and gateway.server.open_connections == 0

            await auntil(ended, 60, what="the connection is dropped")
        finally:
            writer.close()


async def test_a_fault_ends_the_streams_and_the_next_one_works(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = MemoryDirectory.of(entry("tiny"))
    async with running_gateway(directory) as gateway:
        async with open_events(gateway) as events:
            await events.next()
            with monkeypatch.context() as patch:
                patch.setattr(directory, "observed", None)
                assert await events.ended()
        async with open_events(gateway) as events:
            assert await events.names() == ["tiny:latest"]
