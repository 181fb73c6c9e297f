"""Pod failures: why a pod does not run, from its status as kubelet and scheduler report it.

This module reads the pod alone. ``report.pod_failure_messages`` adds what the Model's memory estimate says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from corral_core.base.json_fields import JsonObject, get_int, get_object, get_objects, get_str
from corral_core.contracts.pull_status import PullFailure, decode_failure
from corral_operator.observe.labels import PULLER_CONTAINER

Phase = Literal["WaitingForCapacity", "Loading", "Failed"]
"""The phases of a Model that a pod failure can cause."""


@dataclass(frozen=True, slots=True)
class PodFailure:
    """Why a pod does not run: a CamelCase ``reason``, a ``message`` for people, and the resulting ``phase``.

    The phase Failed means that the pod keeps failing: the gateway then rejects requests instead of queueing them.
    """

    reason: str
    message: str
    phase: Phase


class ContainerState(StrEnum):
    """WAITING: it is to be started, for the first time or again."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"


_NO_RUNTIME_CLASS = re.compile(r'RuntimeClass "([^"]*)" not found')
_REJECTIONS = (
    " is forbidden: ",
    " is invalid: ",
    " denied the request",
    "failed to create typed patch object",
    "cannot unmarshal",
    "unknown field",
    " too large",
)
"""Parts of the API server's messages about objects that it will not take before something is changed."""

_UNRECOVERABLE = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"})
_STARTING = frozenset({"", "ContainerCreating", "PodInitializing"})
_MAX_STARTS = 3
"""Failed starts after which a runner counts as failed, until one succeeds."""


def deployment_failure(raw: JsonObject) -> PodFailure | None:
    """Return why the API server rejects the pods of a Deployment. The controller retries, so this can clear itself."""
    conditions = {get_str(item, "type"): item for item in get_objects(raw, "status", "conditions")}
    failure = conditions.get("ReplicaFailure", {})
    if get_str(failure, "status") != "True":
        return None
    return rejected_pod(get_str(failure, "message"))


def rejected_pod(message: str) -> PodFailure:
    """Return the failure for a pod that the API server rejected with this message."""
    if found := _NO_RUNTIME_CLASS.search(message):
        advice = f'the cluster has no RuntimeClass "{found[1]}", which gives containers access to GPUs: install the GPU'
        return PodFailure("RuntimeClassMissing", f"{advice} vendor's operator, or set spec.runtimeClassName", "Failed")
    return rejected_object("Pod", message)


def rejected_object(kind: str, message: str) -> PodFailure:
    """Return the failure for an object of this kind that the API server rejected with this message.

    Requests are not queued for a Model whose quota is exceeded. The end of other pods does not start its runner, since
    the ReplicaSet controller may try again only after 16 minutes; the next request makes it try.
    """
    text = f"the API server rejected the Model's {kind}: {message}"
    if "exceeded quota" in message:
        advice = "raise the ResourceQuota of the namespace, end other pods in it, or lower spec.pod.resources"
        return PodFailure("QuotaExceeded", f"{text}; {advice}", "Failed")
    return PodFailure(f"{kind}Rejected", text, "Failed" if any(part in message for part in _REJECTIONS) else "Loading")


def pod_failure(raw: JsonObject) -> PodFailure | None:
    """Return the failure of a pod, None if it has none. Of init containers only the puller counts."""
    for container in get_objects(raw, "status", "initContainerStatuses"):
        if container.get("name") == PULLER_CONTAINER and container_state(container) is ContainerState.WAITING:
            failure = puller_failure(container) or _container_failure(container)
            if failure is not None:
                return failure
    for container in get_objects(raw, "status", "containerStatuses"):
        failure = _container_failure(container)
        if failure is not None:
            return failure
    return _scheduling_failure(raw)


def container_state(status: JsonObject) -> ContainerState:
    """Return the state of a container by its status in the pod; empty if there is none yet."""
    state = get_object(status, "state")
    if "running" in state:
        return ContainerState.RUNNING
    succeeded = "terminated" in state and get_int(state, "terminated", "exitCode") == 0
    return ContainerState.SUCCEEDED if succeeded else ContainerState.WAITING


def puller_failure(container: JsonObject) -> PodFailure | None:
    """Return why the last attempt of a puller that does not run failed, by its container's status.

    A failure that is repeated by itself does not fail the Model.
    """
    for state in ("state", "lastState"):
        ended = get_object(container, state, "terminated")
        if get_int(ended, "exitCode") != 0 and get_str(ended, "reason") != "OOMKilled":
            reason, text = decode_failure(get_str(ended, "message") or get_str(ended, "reason"))
            return PodFailure(reason, text, "Loading" if reason is PullFailure.RETRYING else "Failed")
    return None


def _container_failure(container: JsonObject) -> PodFailure | None:
    if _out_of_memory(container):
        return PodFailure("OOMKilled", "the container exceeded its memory limit", _phase_by_starts(container))
    waiting = get_object(container, "state", "waiting")
    reason = get_str(waiting, "reason")
    if reason in _UNRECOVERABLE:
        return PodFailure(reason, _termination_message(container, waiting), "Failed")
    if reason not in _STARTING:
        return PodFailure(reason, _termination_message(container, waiting), _phase_by_starts(container))
    terminated = get_object(container, "state", "terminated")
    if get_int(terminated, "exitCode") != 0:
        return PodFailure("RunnerFailed", _termination_message(container, terminated), _phase_by_starts(container))
    return None


def _scheduling_failure(raw: JsonObject) -> PodFailure | None:
    conditions = {get_str(item, "type"): item for item in get_objects(raw, "status", "conditions")}
    scheduled = conditions.get("PodScheduled", {})
    if get_str(scheduled, "status") != "False":
        return None
    reason = get_str(scheduled, "reason") or "Unschedulable"
    return PodFailure(reason, get_str(scheduled, "message"), "WaitingForCapacity")


def _out_of_memory(container: JsonObject) -> bool:
    """Return whether the last termination was an OOM kill and the container does not run again yet."""
    if "running" in get_object(container, "state"):
        return False
    ends = (get_object(container, "state", "terminated"), get_object(container, "lastState", "terminated"))
    return get_str(next((end for end in ends if end), {}), "reason") == "OOMKilled"


def _phase_by_starts(container: JsonObject) -> Phase:
    """Return Failed after ``_MAX_STARTS`` failed starts; a container in back-off failed once more than it restarted."""
    return "Failed" if get_int(container, "restartCount") + 1 >= _MAX_STARTS else "Loading"


def _termination_message(container: JsonObject, state: JsonObject) -> str:
    """Return the runner's termination message, or else the kubelet's message or reason."""
    for candidate in (state, get_object(container, "lastState", "terminated")):
        message = get_str(candidate, "message").strip()
        if message and (candidate is not state or get_str(state, "reason") != "CrashLoopBackOff"):
            return message
    return get_str(state, "message") or get_str(state, "reason")
