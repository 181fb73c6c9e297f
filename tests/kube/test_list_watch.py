"""List-watch: the store receives every object and change, through outages and expired watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from corral_core.base.json_fields import JsonObject, get_str
from corral_kube.client import Transform, identity
from corral_kube.errors import APIServerUnreachable, Expired
from corral_kube.list_watch import ListWatch, is_older
from tests.kube.fake_server import FakeServer, discard, item
from tests.support.waiting import auntil


class RecordingStore:
    """Records the calls, with the names of the objects."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.items: list[JsonObject] = []

    def replace(self, items: Sequence[JsonObject], version: str) -> None:
        self.items += items
        self.calls.append(("replace", ",".join(get_str(each, "metadata", "name") for each in items)))

    def apply(self, item: JsonObject) -> None:
        self.items.append(item)
        self.calls.append(("apply", get_str(item, "metadata", "name")))

    def delete(self, item: JsonObject) -> None:
        self.calls.append(("delete", get_str(item, "metadata", "name")))


@pytest.fixture
def store() -> RecordingStore:
    return RecordingStore()


@asynccontextmanager
async def running(server: FakeServer, store: RecordingStore, *, trim: Transform = identity) -> AsyncIterator[ListWatch]:
    """Run a list-watch with selectors in the block."""
    list_watch = ListWatch(server, "/things", store, log=discard, selector="a=b", fields="c=d", trim=trim)
    task = asyncio.create_task(list_watch.run())
    try:
        yield list_watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_store_receives_the_list_and_then_each_change(store: RecordingStore) -> None:
    server = FakeServer(item("a"))
    async with running(server, store):
        server.events.put_nowait(("ADDED", item("b")))
        server.events.put_nowait(("DELETED", item("a", "2")))
        await auntil(lambda: store.calls == [("replace", "a"), ("apply", "b"), ("delete", "a")])
        assert server.selected == [("a=b", "c=d")] * 2


async def test_a_broken_watch_continues_from_its_version_without_a_list(store: RecordingStore) -> None:
    server = FakeServer(item("a"))
    async with running(server, store):
        await auntil(lambda: server.watched_from)
        server.version = 77
        server.events.put_nowait(("BOOKMARK", {"metadata": {"resourceVersion": "77"}}))
        server.events.put_nowait(APIServerUnreachable("connection reset"))
        await auntil(lambda: server.watched_from == ["10", "77"])
        assert store.calls == [("replace", "a")]


async def test_an_expired_watch_lists_again(store: RecordingStore) -> None:
    server = FakeServer(item("a"), item("b"))
    async with running(server, store):
        await auntil(lambda: server.watched_from)
        server.items = [item("b")]
        server.events.put_nowait(Expired("too old"))
        await auntil(lambda: store.calls == [("replace", "a,b"), ("replace", "b")])


async def test_the_store_receives_what_trim_keeps_and_the_watch_keeps_its_version(store: RecordingStore) -> None:
    server = FakeServer(item("a", size=1))
    async with running(server, store, trim=lambda raw: {"size": raw.get("size")}):
        await auntil(lambda: server.watched_from)
        server.version = 13
        server.events.put_nowait(("MODIFIED", item("a", "13", size=2)))
        await auntil(lambda: store.items == [{"size": 1}, {"size": 2}])
        server.events.put_nowait(APIServerUnreachable("connection reset"))
        await auntil(lambda: server.watched_from == ["10", "13"])


async def test_an_unreachable_server_is_listed_once_it_is_reachable(store: RecordingStore) -> None:
    server = FakeServer(item("a"))
    server.reachable = False
    async with running(server, store) as list_watch:
        await auntil(lambda: server.lists >= 2)
        assert not list_watch.synced
        server.reachable = True
        await list_watch.wait_synced()
        assert store.calls == [("replace", "a")]


async def test_after_an_outage_everything_is_listed(store: RecordingStore) -> None:
    server = FakeServer(item("a"))
    async with running(server, store):
        await auntil(lambda: server.watched_from)
        server.reachable, server.items = False, [item("b")]
        server.events.put_nowait(APIServerUnreachable("connection reset"))
        await auntil(lambda: server.lists >= 2)
        server.reachable = True
        await auntil(lambda: store.calls == [("replace", "a"), ("replace", "b")])


async def test_everything_is_listed_when_the_api_server_was_restored_to_an_older_version(store: RecordingStore) -> None:
    server = FakeServer(item("a"))
    async with running(server, store):
        await auntil(lambda: server.watched_from)
        server.version, server.items = 7, [item("b", "5")]
        server.events.put_nowait(APIServerUnreachable("silence"))
        server.events.put_nowait(("ADDED", item("c", "8")))
        await auntil(lambda: store.calls == [("replace", "a"), ("replace", "b"), ("apply", "c")])
        assert server.watched_from == ["10", "7"]


@pytest.mark.parametrize(
    ("version", "other", "older"),
    [("9", "10", True), ("10", "10", False), ("10", "9", False), ("", "10", False), ("9", "x", False)],
)
def test_versions_are_compared_as_numbers(version: str, other: str, older: bool) -> None:
    assert is_older(version, other) is older
