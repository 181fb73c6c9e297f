"""Why a pod does not run, by what the kubelet and the scheduler say of it: in words for people, with what to do.

Here is only what the pod itself tells. What its Model needs is added where that is known (``explain``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from corral_core.jsonfields import Json, integer, mapping, objects, text

Phase = Literal["WaitingForCapacity", "Loading", "Failed"]
"""What a pod's trouble may make of its Model."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pod does not run: a CamelCase ``reason``, a ``message`` for people, and the Model's ``phase`` by it.

    Failed means that it keeps failing, so that requests are better told than kept waiting.
    """

    reason: str
    message: str
    phase: Phase


_NO_CLASS = re.compile(r'RuntimeClass "([^"]*)" not found')


def refusal_of(raw: Json) -> Trouble | None:
    """Of a Deployment whose pods the API server does not let be made. Controllers go on trying, so it may heal."""
    conditions = {text(item, "type"): item for item in objects(raw, "status", "conditions")}
    failure = conditions.get("ReplicaFailure", {})
    if text(failure, "status") != "True":
        return None
    return refused(text(failure, "message"))


def refused(message: str) -> Trouble:
    """Of the API server's words for why it does not let a pod be made."""
    if found := _NO_CLASS.search(message):
        advice = f'the cluster has no RuntimeClass "{found[1]}", by which containers get at its GPUs: install the GPU'
        return Trouble("RuntimeClassMissing", f"{advice} vendor's operator, or set spec.runtimeClassName", "Failed")
    phase: Phase = "Failed" if " is forbidden: " in message else "Loading"
    if "exceeded quota" in message:
        phase = "WaitingForCapacity"
    return Trouble("PodRefused", f"the Model's pod cannot be made: {message}", phase)


_HOPELESS = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"})
_HARMLESS = frozenset({"", "ContainerCreating", "PodInitializing"})
_STARTS = 3
"""After this many failed starts a runner is given up on, until one succeeds."""


def trouble_of(raw: Json) -> Trouble | None:
    """Of a pod; None when nothing is wrong."""
    for container in objects(raw, "status", "containerStatuses"):
        if _out_of_memory(container):
            return Trouble("OOMKilled", "it took more memory than it may", _by_starts(container))
        waiting = mapping(container, "state", "waiting")
        reason = text(waiting, "reason")
        if reason in _HOPELESS:
            return Trouble(reason, _last_words(container, waiting), "Failed")
        if reason not in _HARMLESS:
            return Trouble(reason, _last_words(container, waiting), _by_starts(container))
        ended = mapping(container, "state", "terminated")
        if integer(ended, "exitCode") != 0:
            return Trouble("RunnerFailed", _last_words(container, ended), _by_starts(container))
    conditions = {text(item, "type"): item for item in objects(raw, "status", "conditions")}
    scheduled = conditions.get("PodScheduled", {})
    if text(scheduled, "status") == "False":
        reason = text(scheduled, "reason") or "Unschedulable"
        return Trouble(reason, text(scheduled, "message"), "WaitingForCapacity")
    return None


def _out_of_memory(container: Json) -> bool:
    """Whether that ended it, the last time it did, and nothing runs in its place yet."""
    if "running" in mapping(container, "state"):
        return False
    ends = (mapping(container, "state", "terminated"), mapping(container, "lastState", "terminated"))
    return text(next((end for end in ends if end), {}), "reason") == "OOMKilled"


def _by_starts(container: Json) -> Phase:
    """A container that waits to be started again has failed once more than it was restarted."""
    return "Failed" if integer(container, "restartCount") + 1 >= _STARTS else "Loading"


def _last_words(container: Json, state: Json) -> str:
    """What the runner wrote before it ended, else what the kubelet says."""
    for candidate in (state, mapping(container, "lastState", "terminated")):
        message = text(candidate, "message").strip()
        if message and (candidate is not state or text(state, "reason") != "CrashLoopBackOff"):
            return message
    return text(state, "message") or text(state, "reason")
