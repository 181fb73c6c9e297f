"""Reflector: changes of a copy of the API server's objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from corral_core.base.json_fields import JsonObject, get_str
from corral_kube.errors import APIServerUnreachable, Expired
from corral_kube.reflector import Reflector
from tests.kube.fake_server import FakeServer, discard, item
from tests.support.waiting import auntil


@asynccontextmanager
async def changes_of(server: FakeServer) -> AsyncIterator[list[tuple[str, str]]]:
    """Run a reflector in the block; yield the names of each object before and after its changes."""
    changes: list[tuple[str, str]] = []

    def changed(before: JsonObject | None, after: JsonObject | None) -> None:
        changes.append((get_str(before, "metadata", "name"), get_str(after, "metadata", "name")))

    reflector = Reflector(server, "/things", changed=changed, log=discard)
    task = asyncio.create_task(reflector.run())
    await auntil(lambda: reflector.synced)
    try:
        yield changes
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_listed_and_watched_changes_are_reported() -> None:
    server = FakeServer(item("a"))
    async with changes_of(server) as changes:
        server.events.put_nowait(("ADDED", item("b")))
        server.events.put_nowait(("MODIFIED", item("b", "2")))
        server.events.put_nowait(("DELETED", item("a", "3")))
        await auntil(lambda: changes == [("", "a"), ("", "b"), ("b", "b"), ("a", "")])


async def test_a_new_list_reports_missed_deletions_and_no_unchanged_objects() -> None:
    server = FakeServer(item("a"), item("b"))
    async with changes_of(server) as changes:
        server.items = [item("b")]
        server.events.put_nowait(Expired("too old"))
        await auntil(lambda: server.lists == 2)
        server.events.put_nowait(("ADDED", item("c")))
        await auntil(lambda: len(changes) == 4)
        assert changes[2:] == [("a", ""), ("", "c")]


async def test_a_restored_api_server_replaces_newer_objects() -> None:
    server = FakeServer(item("a", "9", size=2), item("b", "10"))
    async with changes_of(server) as changes:
        server.version, server.items = 5, [item("a", "3", size=1)]
        server.events.put_nowait(APIServerUnreachable("silence"))
        server.events.put_nowait(("ADDED", item("c", "6")))
        await auntil(lambda: changes[2:] == [("b", ""), ("a", "a"), ("", "c")])
