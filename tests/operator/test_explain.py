"""Troubles in words, with the numbers and what to do."""

from __future__ import annotations

import dataclasses

from corral_core.estimate import estimate
from corral_core.jsonfields import Json
from corral_core.load import Load
from corral_operator.explain import explained
from corral_operator.objects import PodObject, parse_pod
from corral_operator.troubles import Trouble
from tests.core.test_estimate import SMOLLM2
from tests.operator import samples

ESTIMATE = estimate(SMOLLM2, Load(4096, 4))
RESOURCES: Json = {"requests": {"cpu": "250m", "memory": "596Mi"}, "limits": {"memory": "300Mi"}}


def _pod(status: Json | None = None) -> PodObject:
    raw = samples.pod(ready=False)
    spec = {"nodeName": "node-1", "containers": [{"name": "runner", "resources": RESOURCES}]}
    return parse_pod({**raw, "spec": spec, "status": {"phase": "Running", **(status or {})}})


def _killed(restarts: int = 0) -> dict[str, object]:
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    return {"containerStatuses": [{"name": "runner", "restartCount": restarts, "state": waiting, "lastState": ended}]}


def _unschedulable(message: str) -> dict[str, object]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"phase": "Pending", "conditions": [condition]}


def test_a_runner_that_took_too_much_memory_says_its_limit_what_it_needs_and_what_to_do() -> None:
    trouble = explained(_pod(_killed()), ESTIMATE)
    assert trouble is not None
    assert trouble.reason == "OOMKilled"
    assert "300Mi" in trouble.message
    assert "596 MiB: weights 93, KV cache 360 for 4 x 4096 tokens" in trouble.message
    assert "raise spec.pod.resources.limits.memory, or lower spec.contextLength or spec.parallel" in trouble.message


def test_it_is_given_up_on_when_it_happens_again_and_again() -> None:
    assert [str(_pod(_killed(restarts)).trouble) for restarts in (0, 2)] == [
        str(Trouble("OOMKilled", "it took more memory than it may", phase="Loading")),
        str(Trouble("OOMKilled", "it took more memory than it may", phase="Failed")),
    ]


def test_a_kill_that_just_happened_is_told_before_the_kubelet_waits() -> None:
    state = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    pod = _pod({"containerStatuses": [{"name": "runner", "restartCount": 0, "state": state}]})
    assert pod.trouble is not None
    assert pod.trouble.reason == "OOMKilled"


def test_a_runner_that_was_started_again_is_no_longer_in_trouble() -> None:
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    pod = _pod({"containerStatuses": [{"name": "runner", "state": {"running": {}}, "lastState": ended}]})
    assert explained(pod, ESTIMATE) is None


def test_without_an_estimate_the_limit_is_told() -> None:
    trouble = explained(_pod(_killed()), None)
    assert trouble is not None
    assert "300Mi" in trouble.message


def test_a_pod_without_a_node_says_how_much_it_asks_for() -> None:
    trouble = explained(_pod(_unschedulable("0/2 nodes are available: 2 Insufficient memory.")), ESTIMATE)
    assert trouble is not None
    assert "2 Insufficient memory" in trouble.message
    assert "596 MiB memory" in trouble.message
    assert "0.25 CPU" in trouble.message


def test_a_missing_claim_is_named() -> None:
    message = '0/2 nodes are available: persistentvolumeclaim "weights" not found. preemption: ...'
    trouble = explained(_pod(_unschedulable(message)), ESTIMATE)
    assert trouble is not None
    assert (trouble.reason, trouble.phase) == ("ClaimMissing", "Failed")
    assert 'no PersistentVolumeClaim "weights"' in trouble.message


def test_a_crash_says_the_runners_last_words() -> None:
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": "no context of 4096 x 4 tokens"}}
    pod = _pod({"containerStatuses": [{"name": "runner", "restartCount": 1, "state": waiting, "lastState": ended}]})
    trouble = explained(pod, ESTIMATE)
    assert trouble is not None
    assert (trouble.reason, trouble.message) == ("CrashLoopBackOff", "no context of 4096 x 4 tokens")


def test_a_pod_that_runs_has_none() -> None:
    assert explained(dataclasses.replace(_pod(), trouble=None), ESTIMATE) is None
