"""Observe, plan, act: from what is heard to what is done, whatever the order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from corral_core.activity import Activity
from corral_core.demand import LIFETIME, DemandEntry
from corral_core.node import needs_of
from corral_core.snapshot import Policy
from corral_kube.errors import Unreachable
from corral_operator.actor import Foreign
from corral_operator.controller import PLAN, Controller
from corral_operator.metrics import Measures
from corral_operator.objects import ModelObject
from corral_operator.observe import DELETED, Store
from corral_operator.status import View
from corral_operator.workqueue import WorkQueue
from tests.operator import samples
from tests.support.waiting import auntil

NOW = 1_800_000_000.0


class World:
    """A controller, and a cluster that does at once what it is told: a Deployment's replicas become pods."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.now = NOW
        self.leads = True
        self.asked = 0
        self.store = Store()
        self.measures = Measures()
        self.queue = WorkQueue(self.measures.queue)
        self.version = 100
        self.done: list[tuple[str, int]] = []
        self.views: dict[str, View] = {}
        self.failures = 0
        self.foreign = False
        self.forgotten: list[str] = []
        self.memory: dict[str, str] = {}
        self.told_failed = False
        self.controller = Controller(
            self.store,
            self.queue,
            policy=policy or Policy(),
            actor=self,
            reporter=self,
            may_act=self._may_act,
            clock=lambda: self.now,
            measures=self.measures,
        )

    async def ensure(self, item: ModelObject, replicas: int) -> None:
        await asyncio.sleep(0)
        if self.foreign:
            raise Foreign("model-tiny exists already")
        if self.failures:
            self.failures -= 1
            raise Unreachable("away")
        pod = self._asks(item.name)
        deployments = self.store.deployments.of_model(item.meta.key)
        if [(known.replicas, known.needs) for known in deployments] != [(replicas, needs_of(pod))]:
            self.done.append((item.name, replicas))
            raw = samples.deployment(item.name, replicas=replicas, version=self.next())
            raw["spec"] = {"replicas": replicas, "template": {"spec": pod}}
            self.store.heard_deployment(raw, kind="APPLIED")

    def _asks(self, name: str) -> dict[str, object]:
        """The spec of a Model's pods."""
        memory = self.memory.get(name, "0")
        return {"containers": [{"resources": {"requests": {"memory": memory}}}]}

    async def report(self, view: View) -> float | None:
        self.views[view.item.name] = view
        self.told_failed |= view.decision is not None and view.decision.failure is not None
        return None

    def _may_act(self) -> bool:
        self.asked += 1
        return self.leads

    def forget(self, model: str) -> None:
        self.forgotten.append(model)

    def next(self) -> int:
        self.version += 1
        return self.version

    def model(self, name: str = "tiny", *, waiting: int = 0, kind: str = "MODIFIED", **spec: object) -> None:
        entry = DemandEntry("g1", waiting, oldest=self.now, renewed=self.now)
        status: dict[str, object] = {"demand": [entry.to_json()]} if waiting else {}
        raw = samples.model(name, version=self.next(), spec=spec, status=status)
        self.store.heard_model(raw, kind=kind, now=self.now)
        self.controller.changed(f"lab/{name}")

    def pod(self, name: str = "tiny", *, kind: str = "MODIFIED") -> None:
        raw = samples.pod(name, name=f"{name}-0", version=self.next())
        raw["spec"] = {"nodeName": "node-1", **self._asks(name)}
        self.store.heard_pod(raw, kind=kind)
        self.controller.changed(f"lab/{name}")

    def says(self, activity: Activity | None, name: str = "tiny") -> None:
        self.controller.heard(f"lab/{name}", f"uid-{name}-0", activity)

    async def time(self, seconds: float) -> None:
        self.now += seconds
        self.queue.add(PLAN)

    def replicas(self, name: str = "tiny") -> int | None:
        return next((known.replicas for known in self.store.deployments.of_model(f"lab/{name}")), None)


def scenario(run: Callable[[World], Awaitable[None]], policy: Policy | None = None) -> None:
    async def body() -> None:
        world = World(policy)
        workers = [asyncio.create_task(world.controller.work()) for _ in range(3)]
        try:
            await run(world)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            world.queue.close()

    asyncio.run(asyncio.wait_for(body(), 20))


def test_a_model_gets_its_deployment_at_zero_before_anybody_asks() -> None:
    async def run(world: World) -> None:
        world.model()
        await auntil(lambda: world.replicas() == 0)

    scenario(run)


def test_demand_starts_a_replica_and_the_end_of_keep_alive_ends_it() -> None:
    async def run(world: World) -> None:
        world.model(waiting=1)
        await auntil(lambda: world.replicas() == 1)
        world.pod()
        world.says(samples.activity(in_flight=1))
        world.model(waiting=0)
        await auntil(lambda: "tiny" in world.views and world.views["tiny"].item.demand == ())
        world.says(samples.activity(expires_at=world.now + 300))
        await world.time(299)
        await auntil(lambda: world.views["tiny"].expires_at == NOW + 300)
        assert world.replicas() == 1
        await world.time(2)
        await auntil(lambda: world.replicas() == 0)

    scenario(run)


def test_a_runner_that_cannot_be_asked_is_not_unloaded() -> None:
    async def run(world: World) -> None:
        world.model(waiting=1)
        await auntil(lambda: world.replicas() == 1)
        world.pod()
        world.says(samples.activity(expires_at=world.now + 1))
        world.model(waiting=0)
        world.says(None)
        await world.time(10)
        world.model("other")
        await auntil(lambda: "other" in world.views)
        assert world.replicas() == 1

    scenario(run)


def test_an_unload_request_is_acted_on_at_once() -> None:
    async def run(world: World) -> None:
        world.model(waiting=1)
        await auntil(lambda: world.replicas() == 1)
        world.pod()
        world.model(waiting=0)
        world.says(samples.activity(in_flight=1))
        world.says(samples.activity(expires_at=world.now))
        await auntil(lambda: world.replicas() == 0, 0.4)

    scenario(run)


def test_demand_that_is_not_renewed_stops_counting_by_itself() -> None:
    async def run(world: World) -> None:
        world.model(waiting=1)
        await auntil(lambda: world.replicas() == 1)
        await world.time(LIFETIME + 1)
        await auntil(lambda: world.replicas() == 0)

    scenario(run)


def test_an_idle_model_makes_room_for_one_that_is_waited_for() -> None:
    async def run(world: World) -> None:
        world.model("first", waiting=1)
        await auntil(lambda: world.replicas("first") == 1)
        world.pod("first")
        world.model("first")
        world.says(samples.activity(expires_at=world.now + 300), "first")
        await world.time(10)
        world.model("second", waiting=1)
        await auntil(lambda: world.replicas("first") == 0)
        assert world.replicas("second") == 0
        await auntil(lambda: (decision := world.views["second"].decision) and decision.waiting_for_capacity)
        world.pod("first", kind=DELETED)
        await auntil(lambda: world.replicas("second") == 1)

    scenario(run, Policy(max_loaded=1))


def test_a_busy_model_that_is_to_make_room_is_reported_as_draining_until_it_leaves() -> None:
    async def run(world: World) -> None:
        world.model("first", waiting=1)
        await auntil(lambda: world.replicas("first") == 1)
        world.pod("first")
        world.model("first")
        world.says(samples.activity(in_flight=1), "first")
        await world.time(10)
        world.model("second", waiting=1)
        await auntil(lambda: (decision := world.views["first"].decision) and decision.draining)
        assert world.replicas("first") == 1
        world.says(samples.activity(expires_at=world.now + 300), "first")
        await auntil(lambda: world.replicas("first") == 0)

    scenario(run, Policy(max_loaded=1))


def test_a_write_that_fails_is_tried_again() -> None:
    async def run(world: World) -> None:
        world.failures = 2
        world.model(waiting=1)
        await auntil(lambda: world.replicas() == 1)
        assert world.done == [("tiny", 1)]

    scenario(run)


def test_nothing_is_done_while_another_operator_may_act() -> None:
    async def run(world: World) -> None:
        world.leads = False
        world.model(waiting=1)
        await auntil(lambda: world.asked)
        assert world.done == []
        world.leads = True
        await auntil(lambda: world.replicas() == 1)

    scenario(run)


def test_a_deleted_model_is_forgotten_and_nothing_is_made_for_it() -> None:
    async def run(world: World) -> None:
        world.model(waiting=1)
        world.model(kind=DELETED)
        await auntil(lambda: "lab/tiny" in world.forgotten)
        assert world.done == []

    scenario(run)


def test_a_model_whose_objects_belong_to_somebody_else_says_so_until_they_are_gone() -> None:
    async def run(world: World) -> None:
        world.foreign = True
        world.model(waiting=1)
        await auntil(lambda: "tiny" in world.views and world.views["tiny"].refused)
        world.foreign = False
        world.model(waiting=1)
        await auntil(lambda: world.replicas() == 1 and world.views["tiny"].refused is None)

    scenario(run)


def test_an_invalid_model_is_reported_and_left_alone() -> None:
    async def run(world: World) -> None:
        world.model(source="nonsense")
        await auntil(lambda: "tiny" in world.views)
        assert world.views["tiny"].decision is None
        assert world.done == []

    scenario(run)


def test_a_busy_models_expiry_is_told_as_if_its_requests_ended_now() -> None:
    async def run(world: World) -> None:
        world.model(waiting=1)
        await auntil(lambda: world.replicas() == 1)
        world.pod()
        world.says(samples.activity(in_flight=1))
        await auntil(lambda: world.views["tiny"].expires_at == NOW + 300)

    scenario(run)


def test_ordinary_traffic_is_looked_at_in_gathered_form() -> None:
    async def run(world: World) -> None:
        world.model(waiting=1)
        await auntil(lambda: world.replicas() == 1)
        world.pod()
        world.says(samples.activity())
        world.model(waiting=0)
        await auntil(lambda: world.views["tiny"].item.demand == ())
        world.views.clear()
        for in_flight in (1, 0) * 50:
            expires_at = None if in_flight else world.now + 300
            world.says(samples.activity(in_flight=in_flight, expires_at=expires_at))
        await asyncio.sleep(0)
        assert world.views == {}
        await auntil(lambda: world.views)
        assert world.views["tiny"].expires_at == NOW + 300

    scenario(run)
