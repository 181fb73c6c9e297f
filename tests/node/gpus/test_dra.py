"""Models that share a GPU of a DRA driver on the real kubelet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from corral_core.planning.dra_offers import CLAIM_ANNOTATION, CLAIMED_MEMORY
from tests.cluster.api import at, condition
from tests.node.gpus.conftest import GPUS
from tests.node.gpus.devices import devices_of
from tests.node.gpus.dra_driver import DraDriver
from tests.node.real_node import RealNode
from tests.node.release import COLD_START, Release
from tests.support.waiting import until

pytestmark = [pytest.mark.node, pytest.mark.timeout(600)]

SHARED: dict[str, object] = {"count": 1, "sharing": "shared"}


@pytest.fixture(scope="module")
def driver(release: Release, gpu_node: RealNode) -> Iterator[DraDriver]:
    driver = DraDriver(GPUS[:1], gpu_node, release.cluster.api)
    driver.start()
    yield driver
    driver.stop()


@pytest.fixture
def models(release: Release, model: str) -> Iterator[list[str]]:
    names = [f"{model}-{number}" for number in range(3)]
    yield names
    for name in names:
        release.remove(name)


def test_two_models_share_a_gpu_by_memory_and_a_third_waits_until_one_may_leave(
    release: Release, driver: DraDriver, models: list[str]
) -> None:
    first, second, third = models
    release.add(first, gpu=SHARED, minReplicas=1)
    assert release.ask(first).result(COLD_START).ends == 1
    (pod,) = release.ready_pods(first)
    memory = int(str(at(pod, "metadata", "annotations", CLAIM_ANNOTATION))) >> 20
    driver.set_memory(memory * 5 // 2)
    release.add(second, gpu=SHARED, minReplicas=1)
    assert release.ask(second).result(COLD_START).ends == 1
    assert devices_of(release, first) == devices_of(release, second) == {GPUS[0].uuid}
    release.add(third, gpu=SHARED)
    answer = release.ask(third)
    until(lambda: CLAIMED_MEMORY in _scheduled(release, third), 60, what="the reason why it waits")
    release.edit(first, minReplicas=0)
    assert answer.result(COLD_START).ends == 1
    assert (release.replicas(first), release.replicas(second)) == (0, 1)
    assert devices_of(release, third) == {GPUS[0].uuid}


def _scheduled(release: Release, model: str) -> str:
    """Return the message of the condition Scheduled."""
    return str(condition(release.model(model), "Scheduled").get("message"))
