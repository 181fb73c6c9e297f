"""Watch of nodes and other pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from corral_core.base.json_fields import JsonObject
from corral_kube.client import ObjectList, Transform, identity
from corral_kube.errors import APIServerUnreachable, Forbidden
from corral_operator.observe.cluster_state import ClusterState, StateChange
from corral_operator.observe.cluster_watch import ClusterWatch
from corral_operator.observe.feed import StateFeed
from tests.operator import samples
from tests.operator.fake_kube import FakeKube
from tests.operator.samples import other_pod
from tests.support.waiting import auntil

NODES_CHANGED, PODS_CHANGED = StateChange(nodes=True), StateChange(other_pods=True)


class WatchServer(FakeKube):
    """Two lists, and watches that return the events put into their queues; ``selectors`` are those of the lists."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: dict[str, list[JsonObject]] = {"nodes": [samples.node("n")], "pods": []}
        self.events: dict[str, asyncio.Queue[tuple[str, JsonObject]]] = {
            "nodes": asyncio.Queue(),
            "pods": asyncio.Queue(),
        }
        self.selectors: dict[str, tuple[str, str]] = {}

    async def get(self, path: str) -> JsonObject:
        self._fail()
        return {}

    async def list(self, path: str, *, selector: str = "", fields: str = "", trim: Transform = identity) -> ObjectList:
        kind = path.rpartition("/")[2]
        self.selectors[kind] = selector, fields
        return ObjectList([trim(item) for item in self.listed[kind]], "1")

    async def watch(
        self, path: str, version: str, *, selector: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[str, JsonObject]]:
        while True:
            yield await self.events[path.rpartition("/")[2]].get()


class Watched:
    """A cluster watch over a server in memory."""

    def __init__(self, *namespaces: str) -> None:
        self.server = WatchServer()
        self.state = ClusterState()
        self.changes: list[StateChange] = []
        feed = StateFeed(self.state, self.changes.append)
        self.watch = ClusterWatch(self.server, feed, namespaces=namespaces)

    def requested(self) -> dict[str, int]:
        """Return what is requested of the node ``n``."""
        (node,) = self.state.nodes()
        return dict(node.requested)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.watch.run())
        await self.watch.wait_synced()
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_listed_pods_count() -> None:
    watched = Watched()
    watched.server.listed["pods"] = [other_pod("a", node="n")]
    async with watched.running():
        assert watched.requested() == {"memory": 1 << 30, "pods": 1}


async def test_only_pods_with_a_node_that_have_not_terminated_are_listed() -> None:
    watched = Watched()
    async with watched.running():
        assert watched.server.selectors["pods"] == (
            "!corral.dev/model",
            "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed",
        )


async def test_pods_that_are_created_and_deleted_are_followed() -> None:
    watched = Watched()
    async with watched.running():
        events = watched.server.events["pods"]
        events.put_nowait(("ADDED", other_pod("a", node="n", memory="2Gi")))
        await auntil(lambda: watched.requested() == {"memory": 2 << 30, "pods": 1})
        events.put_nowait(("DELETED", other_pod("a", node="n", memory="2Gi", version=11)))
        await auntil(lambda: watched.requested() == {})
        assert watched.changes[-2:] == [PODS_CHANGED, PODS_CHANGED]


async def test_a_heartbeat_is_no_change_and_less_memory_is_one() -> None:
    watched = Watched()
    async with watched.running():
        known = len(watched.changes)
        events = watched.server.events["nodes"]
        events.put_nowait(("MODIFIED", samples.node("n", heartbeat="later", version=11)))
        events.put_nowait(("MODIFIED", samples.node("n", memory="1Gi", version=12)))
        await auntil(lambda: watched.state.nodes()[0].node.allocatable["memory"] == 1 << 30)
        assert watched.changes[known:] == [NODES_CHANGED]


async def test_runners_in_namespaces_of_other_operators_count_as_other_pods() -> None:
    watched = Watched("mine")
    watched.server.listed["pods"] = [
        other_pod("other", node="n", memory="2Gi", namespace="other", model="tiny"),
        other_pod("mine", node="n", memory="4Gi", namespace="mine", model="tiny"),
    ]
    async with watched.running():
        assert watched.server.selectors["pods"][0] == ""
        assert watched.requested() == {"memory": 2 << 30, "pods": 1}


async def test_without_permission_nodes_are_not_known() -> None:
    watched = Watched()
    watched.server.failures = [Forbidden("nodes is forbidden")]
    await watched.watch.check_access()
    assert watched.watch.allowed is False
    assert watched.state.nodes() == ()


async def test_an_unreachable_api_server_is_asked_again() -> None:
    watched = Watched()
    watched.server.failures = [APIServerUnreachable("no answer")]
    await watched.watch.check_access()
    assert watched.watch.allowed is True
