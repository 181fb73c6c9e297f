"""GPUs of a device plugin on the real kubelet: one for each Model, eviction, a device that fails, NVIDIA's runtime."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.api import at, condition
from tests.node.gpus.conftest import GPUS
from tests.node.gpus.device_plugin import DevicePlugin
from tests.node.gpus.devices import devices_of, wait_allocatable
from tests.node.real_node import RealNode
from tests.node.release import COLD_START, Release
from tests.support.waiting import until

pytestmark = [pytest.mark.node, pytest.mark.timeout(600)]

UUIDS = {gpu.uuid for gpu in GPUS}


@pytest.fixture(scope="module", name="plugin")
def registered_plugin(release: Release, gpu_node: RealNode) -> Iterator[DevicePlugin]:
    plugin = DevicePlugin(GPUS, gpu_node.device_plugins)
    plugin.start()
    wait_allocatable(release, gpu_node.name, len(GPUS))
    yield plugin
    plugin.stop()
    wait_allocatable(release, gpu_node.name, 0)


@pytest.fixture
def models(release: Release, model: str) -> Iterator[list[str]]:
    """Three Models, at zero replicas."""
    names = [f"{model}-{number}" for number in range(3)]
    for name in names:
        release.add(name)
        release.wait_phase(name, "Idle")
    yield names
    for name in names:
        release.remove(name)


@pytest.fixture
def runtime_class(release: Release) -> Iterator[str]:
    """The class of NVIDIA's runtime, as the GPU operator creates it."""
    name = "nvidia"
    metadata: dict[str, object] = {"name": name}
    release.cluster.apply(
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": metadata, "handler": name}
    )
    yield name
    release.cluster.api.delete(f"/apis/node.k8s.io/v1/runtimeclasses/{name}")


def test_models_that_ask_for_nothing_get_a_device_each_and_an_idle_one_leaves_for_the_third(
    release: Release, plugin: DevicePlugin, models: list[str]
) -> None:
    first, second, third = models
    for name in (first, second):
        assert release.ask(name).result(COLD_START).ends == 1
    assert devices_of(release, first) | devices_of(release, second) == UUIDS
    assert release.ask(third).result(COLD_START).ends == 1
    assert len(devices_of(release, third)) == 1
    assert sorted(map(release.replicas, (first, second))) == [0, 1]


def test_a_device_that_fails_is_not_offered_and_a_model_that_needs_it_says_so(
    release: Release, gpu_node: RealNode, plugin: DevicePlugin, model: str
) -> None:
    release.add(model, gpu={"count": len(GPUS)})
    plugin.set_healthy(GPUS[1].uuid, False)
    wait_allocatable(release, gpu_node.name, 1)
    answer = release.ask(model)
    until(lambda: "the most that is free is 1 nvidia.com/gpu" in _scheduled(release, model), 30, what="the reason")
    plugin.set_healthy(GPUS[1].uuid, True)
    assert answer.result(COLD_START).ends == 1
    assert devices_of(release, model) == UUIDS


def test_nvidias_runtime_gives_a_runner_the_devices_that_the_plugin_names(
    release: Release, plugin: DevicePlugin, runtime_class: str, model: str
) -> None:
    plugin.strategy = "envvar"
    release.add(model, gpu={"count": 1}, runtimeClassName=runtime_class)
    assert release.ask(model).result(COLD_START).ends == 1
    (pod,) = release.ready_pods(model)
    assert at(pod, "spec", "runtimeClassName") == runtime_class
    assert len(devices_of(release, model)) == 1


def _scheduled(release: Release, model: str) -> str:
    """Return the message of the condition Scheduled."""
    return str(condition(release.model(model), "Scheduled").get("message"))
