"""Two gateways that exchange usage reports: shared queue limit and slots."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from corral_core.base.json_fields import JsonObject
from corral_kube.client import ObjectList, Transform, identity
from corral_server.gateway.peers.peer_usage import Peers
from corral_server.gateway.peers.sync import PeerSettings, peer_sync
from corral_server.wire.errors import QUEUE_FULL
from tests.gateway.kube_objects import endpoint as listed
from tests.gateway.kube_objects import endpoint_slice
from tests.support.fake_upstream import Call, FakeUpstream, fake_upstream, reply
from tests.support.gateway import MemoryDirectory, RunningGateway, endpoint, entry, running_gateway
from tests.support.planning import NOW, runner_status
from tests.support.ports import free_port
from tests.support.waiting import auntil

HOSTS = ("127.0.0.2", "127.0.0.3")


class Cluster:
    """Fake API server that lists the endpoints of the gateways."""

    async def list(self, path: str, *, selector: str = "", fields: str = "", trim: Transform = identity) -> ObjectList:
        assert path == "/apis/discovery.k8s.io/v1/namespaces/lab/endpointslices"
        assert selector == "kubernetes.io/service-name=corral"
        return ObjectList([endpoint_slice(*map(listed, HOSTS))], "1")

    async def current_version(self, path: str, *, fields: str = "") -> str:
        return "1"

    async def watch(
        self, path: str, version: str, *, selector: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[str, JsonObject]]:
        await asyncio.Event().wait()
        yield "never", {}


@dataclass
class Runner:
    """Fake runner that responds when the gate is open, and reports its requests by gateway."""

    slots: int = 4
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    active: Counter[str] = field(default_factory=Counter)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    most: int = 0

    async def behave(self, call: Call) -> None:
        if call.path.startswith("/activity"):
            await self.watch(call)
            return
        sender = call.headers["corral-gateway"]
        self.count(sender, 1)
        try:
            await self.gate.wait()
            await reply()(call)
        finally:
            self.count(sender, -1)

    def count(self, sender: str, number: int) -> None:
        self.active[sender] += number
        self.most = max(self.most, self.active.total())
        self.changed.set()

    async def watch(self, call: Call) -> None:
        await call.head(200, {"transfer-encoding": "chunked"})
        while True:
            self.changed.clear()
            total = self.active.total()
            said = runner_status(in_flight=min(total, self.slots)).to_json(NOW)
            said |= {"waiting": max(0, total - self.slots), "by_gateway": dict(+self.active)}
            await call.chunk(json.dumps(said).encode() + b"\n")
            await self.changed.wait()


@dataclass
class Gateways:
    one: RunningGateway
    two: RunningGateway
    upstream: FakeUpstream
    runner: Runner

    def ready(self, slots: int = 4) -> None:
        for each in (self.one, self.two):
            directory(each).change(endpoints=(endpoint(self.upstream.port, slots),))

    @property
    def both(self) -> tuple[RunningGateway, RunningGateway]:
        return self.one, self.two


def directory(gateway: RunningGateway) -> MemoryDirectory:
    found = gateway.gateway.dispatcher._directory
    assert isinstance(found, MemoryDirectory)
    return found


@asynccontextmanager
async def two_gateways(*, max_queue: int = 512, keys_file: str = "") -> AsyncIterator[Gateways]:
    runner, running, known = Runner(), list[RunningGateway](), list[Peers]()
    peering = PeerSettings("lab", "corral", free_port())
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(fake_upstream(runner.behave))
        for host in HOSTS:
            name = f"pod-{host}"
            peers = Peers(name)
            models = MemoryDirectory.of(entry("tiny"), entry("other"))
            gateway = await stack.enter_async_context(
                running_gateway(
                    models, peers=peers, gateway_id=name, drain=1.0, max_queue=max_queue, keys_file=keys_file
                )
            )
            usage = gateway.gateway.dispatcher.queue.usage
            await stack.enter_async_context(peer_sync(peering, Cluster(), peers, usage=usage, host=host))
            running.append(gateway)
            known.append(peers)
        await auntil(lambda: all(peers._peers for peers in known), what="both have a report of the other")
        yield Gateways(running[0], running[1], upstream, runner)


def known(gateway: RunningGateway) -> int:
    """Return the pending requests at the peer, as this gateway knows them."""
    return gateway.gateway.dispatcher.queue._admission._peers.pending_total()


def allowed(gateway: RunningGateway) -> int:
    """Return how many slots of the runner this gateway may use."""
    ((_, line),) = gateway.gateway.dispatcher.queue.model_queues()
    return sum(place.capacity for place in line.endpoints.values())


async def test_the_queue_limit_is_shared_by_all_gateways() -> None:
    async with two_gateways(max_queue=4) as gateways:
        one, two = gateways.both
        held = [asyncio.create_task(one.chat()) for _ in range(3)]
        await auntil(lambda: known(two) == 3)
        held.append(asyncio.create_task(two.chat()))
        await two.until_pending(1)
        await auntil(lambda: known(one) == 1)
        for gateway in gateways.both:
            answer = await gateway.chat()
            assert (answer.status_code, answer.json()) == (503, {"error": QUEUE_FULL})
        gateways.ready()
        gateways.runner.gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*held)} == {200}
        await auntil(lambda: known(one) == known(two) == 0)


async def test_a_stopped_gateway_stops_counting() -> None:
    async with two_gateways(max_queue=2) as gateways:
        one, two = gateways.both
        held = [asyncio.create_task(one.chat()) for _ in range(2)]
        await auntil(lambda: known(two) == 2)
        assert (await two.chat()).status_code == 503
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        await auntil(lambda: known(two) == 0)


async def test_gateways_send_little_more_than_the_slots_on_a_cold_start() -> None:
    async with two_gateways() as gateways:
        held = [asyncio.create_task(each.chat()) for each in gateways.both for _ in range(10)]
        for gateway in gateways.both:
            await auntil(lambda: known(gateway) == 10)  # noqa: B023  awaited here
        gateways.ready(slots=3)
        await auntil(lambda: gateways.runner.active.total() == 4, what="three slots, two each")
        gateways.runner.gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*held)} == {200}
    assert gateways.runner.most <= 4


async def test_a_gateway_does_not_use_the_slots_of_another() -> None:
    async with two_gateways() as gateways:
        one, two = gateways.both
        gateways.ready(slots=2)
        first = [asyncio.create_task(one.chat()) for _ in range(2)]
        await auntil(lambda: gateways.runner.active.total() == 2)
        waking = asyncio.create_task(two.chat())
        await auntil(lambda: gateways.runner.active.total() == 3, what="nothing was known of the runner yet")
        await auntil(lambda: allowed(two) == 0, what="now it is")
        second = asyncio.create_task(two.chat())
        await two.until_pending(1)
        gateways.runner.gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*first, waking, second)} == {200}
    assert gateways.runner.most == 3


async def test_no_request_is_left_over_after_random_arrivals_and_disconnects() -> None:
    chance = random.Random(5)
    async with two_gateways(max_queue=12) as gateways:
        gateways.ready(slots=2)
        gateways.runner.gate.set()

        async def client(gateway: RunningGateway) -> int:
            await asyncio.sleep(chance.random())
            try:
                async with asyncio.timeout(0.05 + chance.random()):
                    return (await gateway.chat()).status_code
            except TimeoutError:
                return 0

        clients = [client(gateway) for gateway in gateways.both for _ in range(100)]
        assert set(await asyncio.gather(*clients)) <= {0, 200, 503}
        for gateway in gateways.both:
            queue = gateway.gateway.dispatcher.queue
            await auntil(lambda: (queue.pending, queue.slots_in_use("default/tiny")) == (0, 0))  # noqa: B023  awaited here
        await auntil(lambda: known(gateways.one) == known(gateways.two) == 0)
        await auntil(lambda: not gateways.runner.active.total())
        assert (await gateways.one.chat()).status_code == (await gateways.two.chat()).status_code == 200
