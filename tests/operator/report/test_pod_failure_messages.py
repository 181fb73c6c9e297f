"""Messages for pod failures, with numbers and advice."""

from __future__ import annotations

import dataclasses

import pytest

from corral_core.weights.load_config import LoadConfig
from corral_core.weights.memory_estimate import estimate_memory
from corral_operator.observe.objects import PodObject, parse_pod
from corral_operator.observe.pod_failures import PodFailure
from corral_operator.report.pod_failure_messages import runner_failure
from tests.core.weights.test_memory_estimate import SMOLLM2
from tests.operator import samples

ESTIMATE = estimate_memory(SMOLLM2, LoadConfig(4096, 4))
RESOURCES = {"requests": {"cpu": "250m", "memory": "724Mi"}, "limits": {"memory": "300Mi"}}


@pytest.fixture
def pod() -> PodObject:
    spec = {"nodeName": "node-1", "containers": [{"name": "runner", "resources": RESOURCES}]}
    return parse_pod(samples.pod(ready=False, spec=spec))


def explained(pod: PodObject, failure: PodFailure, *, estimated: bool = True) -> PodFailure:
    found = runner_failure(dataclasses.replace(pod, failure=failure), ESTIMATE if estimated else None)
    assert found is not None
    return found


OOM_KILLED = PodFailure("OOMKilled", "the container exceeded its memory limit", "Loading")


def test_an_oom_kill_names_the_limit_the_estimate_and_what_to_change(pod: PodObject) -> None:
    found = explained(pod, OOM_KILLED)
    assert (found.reason, found.phase) == ("OOMKilled", "Loading")
    assert "its limit of 300Mi" in found.message
    assert "728 MiB: weights 93, KV cache 360 for 4 x 4096 tokens" in found.message
    assert "raise spec.pod.resources.limits.memory, or lower spec.contextLength or spec.parallel" in found.message


def test_without_an_estimate_an_oom_kill_names_the_limit(pod: PodObject) -> None:
    assert "its limit of 300Mi" in explained(pod, OOM_KILLED, estimated=False).message


def test_an_unschedulable_pod_names_its_requests(pod: PodObject) -> None:
    unschedulable = PodFailure("Unschedulable", "0/2 nodes are available: 2 Insufficient memory.", "WaitingForCapacity")
    found = explained(pod, unschedulable)
    assert "2 Insufficient memory" in found.message
    assert "724 MiB memory" in found.message
    assert "0.25 CPU" in found.message


def test_a_missing_claim_is_named(pod: PodObject) -> None:
    message = '0/2 nodes are available: persistentvolumeclaim "weights" not found. preemption: ...'
    found = explained(pod, PodFailure("Unschedulable", message, "WaitingForCapacity"))
    assert (found.reason, found.phase) == ("ClaimMissing", "Failed")
    assert 'no PersistentVolumeClaim "weights"' in found.message


def test_other_failures_keep_their_message(pod: PodObject) -> None:
    crashed = PodFailure("CrashLoopBackOff", "no context of 4096 x 4 tokens", "Loading")
    assert explained(pod, crashed) == crashed


def test_a_running_pod_has_no_failure(pod: PodObject) -> None:
    assert runner_failure(pod, ESTIMATE) is None
