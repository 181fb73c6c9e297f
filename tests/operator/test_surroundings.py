"""Nodes and other people's pods, as the API server tells of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from corral_core.jsonfields import Json
from corral_kube.client import Listing, Trim, whole
from corral_kube.errors import Forbidden, Unreachable
from corral_operator.nodes import NodeLedger
from corral_operator.surroundings import Surroundings
from tests.operator import samples
from tests.operator.fake_api import FakeApi
from tests.support.waiting import auntil

Event = tuple[str, Json]


class Server(FakeApi):
    """Two lists, and watches that tell what is put into their queues; ``selectors`` is what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: dict[str, list[Json]] = {"nodes": [], "pods": []}
        self.events: dict[str, asyncio.Queue[Event]] = {"nodes": asyncio.Queue(), "pods": asyncio.Queue()}
        self.selectors: dict[str, tuple[str, str]] = {}

    async def get(self, path: str) -> Json:
        self._fail()
        return {}

    async def list(self, path: str, *, selector: str = "", fields: str = "", trim: Trim = whole) -> Listing:
        kind = path.rpartition("/")[2]
        self.selectors[kind] = selector, fields
        return Listing([trim(item) for item in self.listed[kind]], "1")

    async def watch(
        self, path: str, version: str, *, selector: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[str, Json]]:
        while True:
            yield await self.events[path.rpartition("/")[2]].get()


class Bench:
    def __init__(self, *namespaces: str) -> None:
        self.api = Server()
        self.ledger = NodeLedger()
        self.changes: list[bool] = []
        self.surroundings = Surroundings(self.api, self.ledger, namespaces=namespaces, changed=self.changes.append)

    def free(self, name: str = "n") -> dict[str, int]:
        states = {state.node.name: state for state in self.ledger.states()}
        return dict(states[name].taken)


def scenario(bench: Bench, run: Callable[[Bench], Awaitable[None]]) -> None:
    async def body() -> None:
        running = asyncio.create_task(bench.surroundings.run())
        await bench.surroundings.listed()
        try:
            await run(bench)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(asyncio.wait_for(body(), 20))


def pod(name: str, *, node: str = "n", memory: str = "1Gi", version: str = "1", **labels: str) -> Json:
    metadata = {"name": name, "namespace": "lab", "resourceVersion": version, "labels": labels}
    containers = [{"resources": {"requests": {"memory": memory}}}]
    return {"metadata": metadata, "spec": {"nodeName": node, "containers": containers}}


def test_what_is_listed_counts_before_anything_is_said() -> None:
    async def run(bench: Bench) -> None:
        assert bench.free() == {"memory": 1 << 30, "pods": 1}

    bench = Bench()
    bench.api.listed = {"nodes": [samples.node("n")], "pods": [pod("a")]}
    scenario(bench, run)


def test_pods_without_a_node_and_those_that_ended_are_not_even_asked_for() -> None:
    async def run(bench: Bench) -> None:
        assert bench.api.selectors["pods"] == (
            "!corral.dev/model",
            "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed",
        )

    scenario(Bench(), run)


def test_pods_come_and_go() -> None:
    async def run(bench: Bench) -> None:
        bench.api.events["pods"].put_nowait(("ADDED", pod("a", memory="2Gi")))
        await auntil(lambda: bench.free() == {"memory": 2 << 30, "pods": 1})
        bench.api.events["pods"].put_nowait(("DELETED", pod("a", memory="2Gi", version="2")))
        await auntil(lambda: bench.free() == {})
        assert bench.changes[-2:] == [False, False]

    bench = Bench()
    bench.api.listed["nodes"] = [samples.node("n")]
    scenario(bench, run)


def test_a_heartbeat_is_no_change_and_less_room_is() -> None:
    async def run(bench: Bench) -> None:
        known = len(bench.changes)
        bench.api.events["nodes"].put_nowait(("MODIFIED", samples.node("n", heartbeat="later", version=2)))
        bench.api.events["nodes"].put_nowait(("MODIFIED", samples.node("n", memory="1Gi", version=3)))
        await auntil(lambda: bench.ledger.states()[0].node.allocatable["memory"] == 1 << 30)
        assert bench.changes[known:] == [True]

    bench = Bench()
    bench.api.listed["nodes"] = [samples.node("n")]
    scenario(bench, run)


def test_runners_of_namespaces_that_are_not_served_here_count_as_other_peoples() -> None:
    async def run(bench: Bench) -> None:
        assert bench.api.selectors["pods"][0] == ""
        assert bench.free() == {"memory": 2 << 30, "pods": 1}

    bench = Bench("mine")
    theirs = pod("theirs", memory="2Gi", **{"corral.dev/model": "tiny"})
    mine = pod("mine", memory="4Gi", **{"corral.dev/model": "tiny"})
    mine = {**mine, "metadata": {"name": "mine", "namespace": "mine", "labels": {"corral.dev/model": "tiny"}}}
    bench.api.listed = {"nodes": [samples.node("n")], "pods": [theirs, mine]}
    scenario(bench, run)


def test_without_the_right_nodes_are_not_counted() -> None:
    bench = Bench()
    bench.api.failures = [Forbidden("nodes is forbidden")]
    asyncio.run(bench.surroundings.ask())
    assert bench.surroundings.allowed is False
    assert bench.ledger.states() == ()


def test_an_api_server_that_is_away_is_asked_again() -> None:
    bench = Bench()
    bench.api.failures = [Unreachable("away")]
    asyncio.run(bench.surroundings.ask())
    assert bench.surroundings.allowed is True
