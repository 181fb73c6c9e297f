"""RuntimeClass of runners with NVIDIA GPUs, by what the cluster has."""

from __future__ import annotations

import pytest

from corral_kube.errors import Forbidden, KubeError
from corral_operator.observe import api_paths
from corral_operator.reconcile.gpus.runtime_class import CACHE_SECONDS, START_CACHE_SECONDS, RuntimeClasses
from tests.operator.clock import ManualClock
from tests.operator.fake_kube import FakeKube

NVIDIA = f"{api_paths.runtime_classes()}/nvidia"


def add_class(kube: FakeKube) -> None:
    kube.objects[NVIDIA] = {"metadata": {"name": "nvidia"}, "handler": "nvidia"}


async def test_the_runtime_class_is_used_if_the_cluster_has_it(kube: FakeKube) -> None:
    assert await RuntimeClasses(kube).nvidia(starts=False) == ""
    add_class(kube)
    assert await RuntimeClasses(kube).nvidia(starts=False) == "nvidia"


async def test_a_new_runtime_class_is_seen_after_a_minute(kube: FakeKube, clock: ManualClock) -> None:
    classes = RuntimeClasses(kube, clock=clock)
    assert await classes.nvidia(starts=False) == ""
    add_class(kube)
    assert await classes.nvidia(starts=False) == ""
    clock.now += CACHE_SECONDS
    assert await classes.nvidia(starts=False) == "nvidia"


async def test_a_model_that_starts_does_not_get_a_class_that_was_deleted(kube: FakeKube, clock: ManualClock) -> None:
    classes = RuntimeClasses(kube, clock=clock)
    add_class(kube)
    assert await classes.nvidia(starts=False) == "nvidia"
    del kube.objects[NVIDIA]
    clock.now += START_CACHE_SECONDS
    assert await classes.nvidia(starts=False) == "nvidia"
    assert await classes.nvidia(starts=True) == ""


async def test_without_permission_the_runtime_classes_are_unknown(kube: FakeKube) -> None:
    kube.failures.append(Forbidden("runtimeclasses is forbidden"))
    assert await RuntimeClasses(kube).nvidia(starts=False) is None


async def test_a_failed_list_changes_no_pod(kube: FakeKube) -> None:
    kube.failures.append(KubeError("timeout"))
    with pytest.raises(KubeError):
        await RuntimeClasses(kube).nvidia(starts=False)
