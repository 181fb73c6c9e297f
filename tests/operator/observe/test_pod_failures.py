"""Pod failures, from the status of pods and Deployments."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from corral_core.contracts.pull_status import PullFailure, encode_failure
from corral_operator.observe.objects import parse_deployment, parse_pod
from corral_operator.observe.pod_failures import Phase, PodFailure
from tests.operator import pull_samples, samples

OOM_KILLED = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
BACK_OFF = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}}


def failure(state: Mapping[str, object], **container: object) -> PodFailure | None:
    """Return the failure of a pod whose container has this state."""
    statuses = [{"name": "runner", "state": state, **container}]
    return parse_pod(samples.pod(ready=False, status={"containerStatuses": statuses})).failure


def test_the_termination_message_is_kept_during_back_off() -> None:
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": "weights.gguf is not a GGUF\n"}}
    found = failure(BACK_OFF, lastState=ended, restartCount=4)
    assert found == PodFailure("CrashLoopBackOff", "weights.gguf is not a GGUF", "Failed")


@pytest.mark.parametrize(("restarts", "phase"), [(0, "Loading"), (1, "Loading"), (2, "Failed")])
def test_a_runner_that_crashes_fails_after_three_starts(restarts: int, phase: Phase) -> None:
    found = failure({"terminated": {"exitCode": 1, "message": "no memory"}}, restartCount=restarts)
    assert found == PodFailure("RunnerFailed", "no memory", phase)


@pytest.mark.parametrize(("restarts", "phase"), [(0, "Loading"), (2, "Failed")])
def test_a_runner_killed_for_its_memory_fails_after_three_starts(restarts: int, phase: Phase) -> None:
    found = failure(BACK_OFF, lastState=OOM_KILLED, restartCount=restarts)
    assert found == PodFailure("OOMKilled", "the container exceeded its memory limit", phase)


def test_an_oom_kill_is_recognized_before_the_back_off() -> None:
    found = failure(OOM_KILLED, restartCount=0)
    assert found is not None
    assert found.reason == "OOMKilled"


def test_a_restarted_runner_has_no_failure() -> None:
    assert failure({"running": {}}, lastState=OOM_KILLED) is None


def test_an_image_that_cannot_be_pulled_is_a_failure() -> None:
    found = failure({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})
    assert found == PodFailure("ImagePullBackOff", "no such image", "Failed")


def test_an_image_volume_that_cannot_be_pulled_is_a_failure_with_the_reason() -> None:
    """The kubelet reports it as the image of the container that mounts it (toKubeContainerImageVolumes)."""
    message = 'failed to pull and unpack image "r.example/a@sha256:0f": not found'
    assert failure({"waiting": {"reason": "ErrImagePull", "message": message}}) == PodFailure(
        "ErrImagePull", message, "Loading"
    )


def test_a_container_that_is_being_created_has_no_failure() -> None:
    assert failure({"waiting": {"reason": "ContainerCreating"}}) is None


def test_an_unschedulable_pod_waits_for_capacity() -> None:
    pod = parse_pod(samples.pod(ready=False, status=samples.unschedulable("Insufficient nvidia.com/gpu")))
    assert pod.failure == PodFailure("Unschedulable", "Insufficient nvidia.com/gpu", "WaitingForCapacity")


@pytest.mark.parametrize(
    ("message", "reason", "phase"),
    [
        ('pods "m-" is forbidden: pod rejected: RuntimeClass "nvidia" not found', "RuntimeClassMissing", "Failed"),
        ('pods "m-" is forbidden: violates PodSecurity "restricted:latest"', "PodRejected", "Failed"),
        ('pods "m-" is forbidden: exceeded quota: small', "QuotaExceeded", "Failed"),
        ('admission webhook "images" denied the request: not from here', "PodRejected", "Failed"),
        ('Pod "m-" is invalid: spec.containers[0].resources.requests: Invalid value: "2Gi"', "PodRejected", "Failed"),
        ("Internal error occurred: failed calling webhook", "PodRejected", "Loading"),
    ],
)
def test_a_deployment_whose_pods_are_rejected_has_the_reason(message: str, reason: str, phase: Phase) -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    found = parse_deployment(samples.deployment() | {"status": {"conditions": [condition]}}).failure
    assert found is not None
    assert (found.reason, found.phase) == (reason, phase)
    assert 'RuntimeClass "nvidia"' in found.message or message in found.message


def test_a_deployment_whose_pods_are_created_has_no_failure() -> None:
    condition = {"type": "ReplicaFailure", "status": "False", "message": "once"}
    assert parse_deployment(samples.deployment() | {"status": {"conditions": [condition]}}).failure is None


@pytest.mark.parametrize(
    ("reason", "phase"),
    [(PullFailure.RETRYING, "Loading"), (PullFailure.FAILED, "Failed"), (PullFailure.STORE_FULL, "Failed")],
)
def test_the_failure_of_a_pull_in_the_pod_is_that_of_a_puller(reason: PullFailure, phase: Phase) -> None:
    ended = pull_samples.failed(encode_failure(reason, "no room"))
    for raw in (pull_samples.runner(ended), pull_samples.runner(BACK_OFF, last=ended)):
        assert parse_pod(raw).failure == PodFailure(reason, "no room", phase)


def test_an_image_of_a_pull_in_the_pod_that_cannot_be_pulled_is_a_failure() -> None:
    found = parse_pod(pull_samples.runner({"waiting": {"reason": "ImagePullBackOff", "message": "no image"}})).failure
    assert found == PodFailure("ImagePullBackOff", "no image", "Failed")


@pytest.mark.parametrize("state", [{"running": {}}, {"terminated": {"exitCode": 0}}])
def test_a_pull_in_the_pod_that_runs_again_or_succeeded_has_no_failure(state: Mapping[str, object]) -> None:
    raw = pull_samples.runner(state, last=pull_samples.failed("PullFailed: gone"))
    assert parse_pod(raw).failure is None


def test_other_init_containers_are_not_the_models() -> None:
    statuses = [{"name": "mesh", "state": {"terminated": {"exitCode": 1, "message": "no mesh"}}}]
    assert parse_pod(samples.pod(ready=False, status={"initContainerStatuses": statuses})).failure is None
