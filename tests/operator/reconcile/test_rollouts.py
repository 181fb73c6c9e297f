"""An upgrade rolls loaded Models one after the other."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from corral_core.base.json_fields import JsonObject, get_object, get_objects, get_value
from corral_operator.config import RunnerDefaults
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.objects import parse_deployment, parse_model_object
from corral_operator.reconcile.applier import Applier
from corral_operator.reconcile.rollouts import RETRY, Rollouts
from tests.operator import samples
from tests.operator.clock import ManualClock
from tests.operator.fake_kube import FakeKube
from tests.operator.reconcile.test_applier import NoInspection, NoPulls

OLD, NEW = RunnerDefaults(image="runner:1"), RunnerDefaults(image="runner:2")
NAMES = ("a", "b", "c")
TIMEOUT = 300.0


class Upgrade:
    """Models of an installation; ``restart`` replaces its operator by one with other defaults."""

    def __init__(self, kube: FakeKube, state: ClusterState, clock: ManualClock) -> None:
        self.kube, self.state, self.clock = kube, state, clock
        self.requeued: list[tuple[str, float]] = []
        self.restart(OLD)

    def restart(self, defaults: RunnerDefaults) -> None:
        rollouts = Rollouts(
            self.state,
            timeout=TIMEOUT,
            requeue=lambda model, delay: self.requeued.append((model, delay)),
            clock=self.clock,
        )
        self.applier = Applier(self.kube, self.state, defaults, NoInspection(), pulls=NoPulls(), rollouts=rollouts)

    async def apply(self, name: str, replicas: int = 1, *, generation: int = 1, **spec: object) -> None:
        raw = samples.with_metadata(samples.model(name, spec=spec, version=self._version()), generation=generation)
        self.state.apply(Kind.MODELS, raw)
        await self.applier.apply(parse_model_object(raw), replicas, pull=True)

    async def apply_all(self) -> None:
        for name in NAMES:
            await self.apply(name)

    def settle(self, name: str, *, ready: bool = True) -> None:
        """Receive a status of the Deployment in which all runners are new."""
        known = self._deployment(name)
        wanted = get_value(known, "spec", "replicas")
        status = {
            "observedGeneration": get_value(known, "metadata", "generation"),
            "replicas": wanted,
            "updatedReplicas": wanted,
            "availableReplicas": wanted if ready else 0,
        }
        raw = {**samples.with_metadata(known, resourceVersion=str(self._version())), "status": status}
        self.kube.objects[api_paths.deployments("lab", f"model-{name}")] = raw
        self.state.apply(Kind.DEPLOYMENTS, raw)

    def images(self) -> dict[str, object]:
        return {name: self._container(name)["image"] for name in NAMES}

    def _container(self, name: str) -> JsonObject:
        return get_objects(get_object(self._deployment(name), "spec", "template", "spec"), "containers")[0]

    def _deployment(self, name: str) -> Mapping[str, object]:
        return self.kube.objects[api_paths.deployments("lab", f"model-{name}")]

    def _version(self) -> int:
        self.kube.version += 1
        return self.kube.version


@pytest.fixture
async def upgrade(kube: FakeKube, state: ClusterState, clock: ManualClock) -> Upgrade:
    """An installation with loaded Models, whose operator was upgraded and has applied nothing yet."""
    made = Upgrade(kube, state, clock)
    await made.apply_all()
    for name in NAMES:
        made.settle(name)
    made.restart(NEW)
    return made


async def test_loaded_models_are_rolled_one_after_the_other(upgrade: Upgrade) -> None:
    await upgrade.apply_all()
    assert list(upgrade.images().values()) == ["runner:2", "runner:1", "runner:1"]
    assert upgrade.requeued == [("lab/b", RETRY), ("lab/c", RETRY)]
    upgrade.settle("a", ready=False)
    await upgrade.apply_all()
    assert list(upgrade.images().values()) == ["runner:2", "runner:1", "runner:1"]
    upgrade.settle("a")
    await upgrade.apply_all()
    assert list(upgrade.images().values()) == ["runner:2", "runner:2", "runner:1"]
    upgrade.settle("b")
    await upgrade.apply_all()
    assert set(upgrade.images().values()) == {"runner:2"}


async def test_a_runner_that_does_not_start_stops_no_other(upgrade: Upgrade) -> None:
    await upgrade.apply_all()
    upgrade.clock.now += TIMEOUT - 1
    await upgrade.apply("b")
    assert upgrade.images()["b"] == "runner:1"
    upgrade.clock.now += 1
    await upgrade.apply("b")
    assert upgrade.images()["b"] == "runner:2"


async def test_a_model_without_runners_gets_the_new_template_at_once(upgrade: Upgrade) -> None:
    await upgrade.apply("a")
    await upgrade.apply("b", 0)
    assert upgrade.images()["b"] == "runner:2"


async def test_a_change_of_the_model_is_applied_at_once(upgrade: Upgrade) -> None:
    await upgrade.apply("a")
    await upgrade.apply("b", generation=2, contextLength=2048)
    assert upgrade.images()["b"] == "runner:2"


async def test_a_deployment_of_an_older_release_waits_as_well(upgrade: Upgrade) -> None:
    for name in NAMES:
        path = api_paths.deployments("lab", f"model-{name}")
        upgrade.kube.objects[path] = samples.with_metadata(upgrade.kube.objects[path], annotations={})
        upgrade.settle(name)
    await upgrade.apply_all()
    assert list(upgrade.images().values()) == ["runner:2", "runner:1", "runner:1"]


def test_a_deployment_is_settled_when_all_its_pods_are_new_and_available() -> None:
    status = {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
    raw = samples.with_metadata(samples.deployment(replicas=2), generation=3)
    assert parse_deployment({**raw, "status": status}).settled
    for change in ({"observedGeneration": 2}, {"replicas": 3}, {"updatedReplicas": 1}, {"availableReplicas": 1}):
        assert not parse_deployment({**raw, "status": {**status, **change}}).settled
