"""A copy of the API server's objects that survives outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from corral_core.jsonfields import Json, text
from corral_kube.client import Listing, Trim, whole
from corral_kube.errors import Expired, KubeError, Unreachable
from corral_kube.reflector import Reflector
from tests.support.waiting import auntil

Event = tuple[str, Json]


class Server:
    """Lists ``items``; a watch yields what is put into ``events``, and raises what is an exception."""

    def __init__(self) -> None:
        self.items: list[Json] = []
        self.events: asyncio.Queue[Event | KubeError] = asyncio.Queue()
        self.watched_from: list[str] = []
        self.lists = 0
        self.away = False

    async def list(self, path: str, *, selector: str = "", fields: str = "", trim: Trim = whole) -> Listing:
        self.lists += 1
        if self.away:
            raise Unreachable("away")
        return Listing([trim(each) for each in self.items], f"list-{self.lists}")

    async def watch(self, path: str, version: str, *, selector: str = "", fields: str = "") -> AsyncIterator[Event]:
        self.watched_from.append(version)
        while True:
            event = await self.events.get()
            if isinstance(event, KubeError):
                raise event
            yield event


def item(name: str, version: str = "1") -> Json:
    return {"metadata": {"namespace": "lab", "name": name, "resourceVersion": version}}


def _said(name: str, **fields: object) -> None:
    """Nobody reads this log."""


class Copy:
    """A reflector that runs in a block, and the names of what changed."""

    def __init__(self, server: Server, trim: Trim = whole) -> None:
        self.changes: list[tuple[str, str]] = []
        self.reflector = Reflector(server, "/things", changed=self._changed, said=_said, trim=trim)
        self._task: asyncio.Task[None] | None = None

    def _changed(self, before: Json | None, after: Json | None) -> None:
        self.changes.append((text(before, "metadata", "name"), text(after, "metadata", "name")))

    async def __aenter__(self) -> Copy:
        self._task = asyncio.create_task(self.reflector.run())
        await auntil(lambda: self.reflector.listed)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def keys(self) -> list[str]:
        return sorted(self.reflector.objects)


def test_what_is_listed_and_watched_is_in_the_copy() -> None:
    async def scenario() -> None:
        server = Server()
        server.items = [item("a")]
        async with Copy(server) as copy:
            server.events.put_nowait(("ADDED", item("b")))
            server.events.put_nowait(("DELETED", item("a", "2")))
            await auntil(lambda: copy.keys() == ["lab/b"])
            assert copy.changes == [("", "a"), ("", "b"), ("a", "")]

    asyncio.run(scenario())


def test_a_broken_watch_goes_on_from_where_it_was_and_keeps_the_copy() -> None:
    async def scenario() -> None:
        server = Server()
        server.items = [item("a")]
        async with Copy(server) as copy:
            server.events.put_nowait(("BOOKMARK", {"metadata": {"resourceVersion": "77"}}))
            server.events.put_nowait(Unreachable("cut"))
            await auntil(lambda: len(server.watched_from) == 2)
            assert server.watched_from == ["list-1", "77"]
            assert (copy.keys(), server.lists) == (["lab/a"], 1)

    asyncio.run(scenario())


def test_an_expired_watch_lists_anew_and_notices_what_was_deleted() -> None:
    async def scenario() -> None:
        server = Server()
        server.items = [item("a"), item("b")]
        async with Copy(server) as copy:
            server.items = [item("b")]
            server.events.put_nowait(Expired("too old"))
            await auntil(lambda: copy.keys() == ["lab/b"])
            assert copy.changes[-1] == ("a", "")

    asyncio.run(scenario())


def test_an_unchanged_object_is_no_change() -> None:
    async def scenario() -> None:
        server = Server()
        server.items = [item("a")]
        async with Copy(server) as copy:
            server.events.put_nowait(Expired("too old"))
            await auntil(lambda: server.lists == 2)
            server.events.put_nowait(("ADDED", item("b")))
            await auntil(lambda: len(copy.changes) == 2)
            assert copy.changes == [("", "a"), ("", "b")]

    asyncio.run(scenario())


def test_only_what_is_kept_of_an_object_counts() -> None:
    def trim(raw: Json) -> Json:
        return {"metadata": {"namespace": "lab", "name": text(raw, "metadata", "name")}, "size": raw.get("size")}

    async def scenario() -> None:
        server = Server()
        server.items = [{**item("a"), "size": 1, "beat": 1}]
        async with Copy(server, trim) as copy:
            server.events.put_nowait(("MODIFIED", {**item("a", "2"), "size": 1, "beat": 2}))
            server.events.put_nowait(("MODIFIED", {**item("a", "3"), "size": 2, "beat": 3}))
            await auntil(lambda: copy.reflector.objects["lab/a"].get("size") == 2)
            assert copy.changes == [("", "a"), ("a", "a")]
            server.events.put_nowait(Unreachable("cut"))
            await auntil(lambda: server.watched_from == ["list-1", "3"])

    asyncio.run(scenario())


def test_a_server_that_is_away_at_the_start_is_listed_when_it_is_there() -> None:
    async def scenario() -> None:
        server = Server()
        server.away, server.items = True, [item("a")]
        reflector = Reflector(server, "/things", changed=lambda before, after: None, said=_said)
        task = asyncio.create_task(reflector.run())
        await auntil(lambda: server.lists >= 2)
        assert not reflector.listed
        server.away = False
        await auntil(lambda: "lab/a" in reflector.objects)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
