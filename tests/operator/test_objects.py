"""What is kept of the API server's objects."""

from __future__ import annotations

import pytest

from corral_operator.objects import Trouble, parse_deployment, parse_model_object, parse_pod
from corral_operator.troubles import Phase
from tests.operator import samples


def with_container(state: dict[str, object], **container: object) -> Trouble | None:
    raw = samples.pod(ready=False)
    status = raw["status"]
    assert isinstance(status, dict)
    status["containerStatuses"] = [{"name": "runner", "state": state, **container}]
    return parse_pod(raw).trouble


def test_an_invalid_model_is_kept_with_its_problems() -> None:
    item = parse_model_object(samples.model(spec={"source": "nonsense", "minReplicas": -1}))
    assert item.model is None
    assert {problem.field for problem in item.problems} >= {"spec.source", "spec.minReplicas"}


def test_a_pod_belongs_to_the_model_of_its_label() -> None:
    pod = parse_pod(samples.pod("tiny", name="tiny-abc"))
    assert (pod.meta.model, pod.meta.key, pod.ip, pod.ready) == ("lab/tiny", "lab/tiny-abc", "10.1.2.3", True)


def test_a_pod_that_is_not_ready_has_no_time_since_it_was() -> None:
    assert parse_pod(samples.pod(ready=False)).ready_since is None
    assert parse_pod(samples.pod(ready=True)).ready_since == 1767323045.0


def test_a_runners_last_words_are_kept_while_it_waits_to_be_started_again() -> None:
    trouble = with_container(
        {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}},
        lastState={"terminated": {"exitCode": 1, "reason": "Error", "message": "weights.gguf is not a GGUF\n"}},
        restartCount=4,
    )
    assert trouble == Trouble("CrashLoopBackOff", "weights.gguf is not a GGUF", "Failed")


@pytest.mark.parametrize(("restarts", "phase"), [(0, "Loading"), (1, "Loading"), (2, "Failed")])
def test_a_crash_is_a_failure_after_three_starts(restarts: int, phase: Phase) -> None:
    state: dict[str, object] = {"terminated": {"exitCode": 1, "message": "no memory"}}
    assert with_container(state, restartCount=restarts) == Trouble("RunnerFailed", "no memory", phase)


def test_an_image_that_cannot_be_had_is_a_failure() -> None:
    trouble = with_container({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})
    assert trouble == Trouble("ImagePullBackOff", "no such image", "Failed")


def test_a_container_that_is_being_created_is_no_trouble() -> None:
    assert with_container({"waiting": {"reason": "ContainerCreating"}}) is None


def test_a_pod_that_no_node_has_room_for_waits_for_capacity() -> None:
    raw = samples.pod(ready=False)
    status = raw["status"]
    assert isinstance(status, dict)
    status["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient nvidia.com/gpu"}
    ]
    assert parse_pod(raw).trouble == Trouble("Unschedulable", "Insufficient nvidia.com/gpu", "WaitingForCapacity")


@pytest.mark.parametrize(
    ("message", "reason", "phase"),
    [
        ('pods "m-" is forbidden: pod rejected: RuntimeClass "nvidia" not found', "RuntimeClassMissing", "Failed"),
        ('pods "m-" is forbidden: violates PodSecurity "restricted:latest"', "PodRefused", "Failed"),
        ('pods "m-" is forbidden: exceeded quota: small', "PodRefused", "WaitingForCapacity"),
        ("Internal error occurred: failed calling webhook", "PodRefused", "Loading"),
    ],
)
def test_a_deployment_whose_pods_are_refused_says_why(message: str, reason: str, phase: Phase) -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    trouble = parse_deployment(samples.deployment() | {"status": {"conditions": [failure]}}).trouble
    assert trouble is not None
    assert (trouble.reason, trouble.phase) == (reason, phase)
    assert 'RuntimeClass "nvidia"' in trouble.message or message in trouble.message


def test_a_deployment_whose_pods_are_made_is_no_trouble() -> None:
    failure = {"type": "ReplicaFailure", "status": "False", "message": "once"}
    assert parse_deployment(samples.deployment() | {"status": {"conditions": [failure]}}).trouble is None
