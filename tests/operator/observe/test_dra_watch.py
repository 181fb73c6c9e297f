"""Watch of ResourceSlices and of the claims of other pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from corral_core.base.json_fields import JsonObject
from corral_core.planning.dra_offers import CLAIMED_MEMORY
from corral_kube.client import ObjectList, Transform, identity
from corral_kube.errors import APIServerUnreachable, Forbidden, KubeError, NotFound
from corral_operator.observe.cluster_state import ClusterState, Kind, StateChange
from corral_operator.observe.dra_watch import DraWatch
from corral_operator.observe.feed import StateFeed
from tests.operator import samples
from tests.operator.fake_kube import FakeKube
from tests.operator.observe.dra.test_objects import claim, result
from tests.support.fake_gpus import FakeGpu, resource_slice
from tests.support.waiting import auntil

MI = 2**20


class DraServer(FakeKube):
    """Lists of one slice and one claim, and watches that return the events in ``events``."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: dict[str, list[JsonObject]] = {
            "resourceslices": [resource_slice("n", [FakeGpu(0)], memory="100Mi")],
            "resourceclaims": [claim(result("gpu-0", memory="30Mi"))],
        }
        self.events: dict[str, asyncio.Queue[tuple[str, JsonObject]]] = {name: asyncio.Queue() for name in self.listed}
        self.selectors: dict[str, str] = {}

    async def get(self, path: str) -> JsonObject:
        self._fail()
        return {}

    async def list(self, path: str, *, selector: str = "", fields: str = "", trim: Transform = identity) -> ObjectList:
        name = path.rpartition("/")[2]
        self.selectors[name] = selector
        return ObjectList([trim(item) for item in self.listed[name]], "1")

    async def watch(
        self, path: str, version: str, *, selector: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[str, JsonObject]]:
        while True:
            yield await self.events[path.rpartition("/")[2]].get()


@pytest.fixture
def state() -> ClusterState:
    state = ClusterState()
    state.replace(Kind.NODES, [samples.node("n")], "1")
    state.replace(Kind.OTHER_PODS, [], "1")
    return state


def memory(state: ClusterState) -> tuple[int, int]:
    """Return the memory of the node's devices in MiB, and what is taken of it."""
    (node,) = state.nodes()
    return node.node.allocatable.get(CLAIMED_MEMORY, 0) // MI, node.requested.get(CLAIMED_MEMORY, 0) // MI


async def test_devices_and_claims_count_on_their_node(state: ClusterState) -> None:
    server, changes = DraServer(), list[StateChange]()
    watch = DraWatch(server, StateFeed(state, changes.append))
    task = asyncio.create_task(watch.run())
    await watch.wait_synced()
    assert memory(state) == (100, 30)
    gone = samples.with_metadata(claim(), resourceVersion="8")
    server.events["resourceclaims"].put_nowait(("DELETED", gone))
    await auntil(lambda: memory(state) == (100, 0), what="the claim's end")
    assert StateChange(nodes=True) in changes
    assert StateChange(other_pods=True) in changes
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_claims_of_runners_are_left_to_their_pods(state: ClusterState) -> None:
    server = DraServer()
    watch = DraWatch(server, StateFeed(state, lambda _: None))
    task = asyncio.create_task(watch.run())
    await watch.wait_synced()
    assert server.selectors == {"resourceslices": "", "resourceclaims": "!corral.dev/model"}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("error", [Forbidden("no"), NotFound("an older Kubernetes")])
async def test_without_permission_or_the_api_there_are_no_devices(state: ClusterState, error: KubeError) -> None:
    server = DraServer()
    server.failures.append(error)
    watch = DraWatch(server, StateFeed(state, lambda _: None))
    await watch.check_access()
    assert watch.available is False


async def test_access_is_asked_for_until_the_api_server_answers(state: ClusterState) -> None:
    server = DraServer()
    server.failures.append(APIServerUnreachable("down"))
    watch = DraWatch(server, StateFeed(state, lambda _: None), retry=0.0)
    await watch.check_access()
    assert watch.available is True
