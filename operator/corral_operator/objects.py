"""What the operator keeps of the API server's objects: frozen values, parsed once when an object arrives.

Every value knows its ``version`` (resourceVersion as a number, which only grows), so a newer one is never replaced by
an older one, whichever of list, watch and answer to a write came last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from corral_core.demand import DemandEntry, entries_of
from corral_core.errors import InvalidModel, Problem
from corral_core.jsonfields import Json, integer, mapping, objects, text
from corral_core.model import Model
from corral_core.node import Needs, needs_of, requests_of
from corral_core.quantities import Amounts
from corral_core.resource import parse_model
from corral_core.timestamps import parse_timestamp

MODEL_LABEL = "corral.dev/model"

Phase = Literal["WaitingForCapacity", "Loading", "Failed"]
"""What a pod's trouble may make of its Model."""


@dataclass(frozen=True, slots=True)
class Meta:
    """``key`` is ``namespace/name``; ``model`` the key of the Model that the object belongs to, or is."""

    key: str
    model: str
    uid: str
    version: int
    generation: int
    deleted: bool


@dataclass(frozen=True, slots=True)
class ModelObject:
    """A Model as the API server holds it. ``model`` is None when it is not valid, ``problems`` say why."""

    meta: Meta
    name: str
    namespace: str
    created: float
    model: Model | None
    problems: tuple[Problem, ...]
    status: Json
    demand: tuple[DemandEntry, ...]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pod does not run: a CamelCase ``reason``, a ``message`` for people, and the Model's ``phase`` by it.

    Failed means that it keeps failing, so that requests are better told than kept waiting.
    """

    reason: str
    message: str
    phase: Phase


@dataclass(frozen=True, slots=True)
class DeploymentObject:
    """``replicas`` is what is asked for; ``trouble`` says why the API server refuses to have its pods.

    ``needs`` is what each of its pods asks of a node.
    """

    meta: Meta
    replicas: int
    needs: Needs
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class ServiceObject:
    meta: Meta


@dataclass(frozen=True, slots=True)
class PodObject:
    """One runner pod. Times are Unix seconds; ``ip`` and ``node`` are empty until it has one.

    ``holds`` is what it takes of its node until it has ended. ``gone_by`` is when its kubelet is to have ended it, None
    while it is to stay.
    """

    meta: Meta
    name: str
    ip: str
    ready: bool
    ready_since: float | None
    started_at: float
    finished: bool
    scheduled: bool
    trouble: Trouble | None
    node: str = ""
    holds: Amounts = field(default_factory=dict)
    gone_by: float | None = None


def parse_model_object(raw: Json) -> ModelObject:
    model: Model | None = None
    problems: tuple[Problem, ...] = ()
    try:
        model = parse_model(raw)
    except InvalidModel as error:
        problems = error.problems
    name, namespace = text(raw, "metadata", "name"), text(raw, "metadata", "namespace")
    status = mapping(raw, "status")
    return ModelObject(
        meta=_meta(raw, f"{namespace}/{name}"),
        name=name,
        namespace=namespace,
        created=_time(raw, "metadata", "creationTimestamp") or 0.0,
        model=model,
        problems=problems,
        status=status,
        demand=entries_of(status),
    )


def parse_deployment(raw: Json) -> DeploymentObject:
    return DeploymentObject(
        meta=_meta(raw),
        replicas=integer(raw, "spec", "replicas"),
        needs=needs_of(mapping(raw, "spec", "template", "spec")),
        trouble=_refusal(raw),
    )


def parse_service(raw: Json) -> ServiceObject:
    return ServiceObject(meta=_meta(raw))


def parse_pod(raw: Json) -> PodObject:
    conditions = {text(item, "type"): item for item in objects(raw, "status", "conditions")}
    ready = conditions.get("Ready", {})
    is_ready = text(ready, "status") == "True"
    finished = text(raw, "status", "phase") in ("Succeeded", "Failed")
    return PodObject(
        meta=_meta(raw),
        name=text(raw, "metadata", "name"),
        ip=text(raw, "status", "podIP"),
        ready=is_ready,
        ready_since=_time(ready, "lastTransitionTime") if is_ready else None,
        started_at=_time(raw, "status", "startTime") or _time(raw, "metadata", "creationTimestamp") or 0.0,
        finished=finished,
        scheduled=bool(text(raw, "spec", "nodeName")),
        trouble=_trouble(raw, conditions),
        node=text(raw, "spec", "nodeName"),
        holds={} if finished else requests_of(mapping(raw, "spec")),
        gone_by=_time(raw, "metadata", "deletionTimestamp"),
    )


def _meta(raw: Json, model: str | None = None) -> Meta:
    namespace, name = text(raw, "metadata", "namespace"), text(raw, "metadata", "name")
    version = text(raw, "metadata", "resourceVersion")
    return Meta(
        key=f"{namespace}/{name}",
        model=model or f"{namespace}/{_owner(raw)}",
        uid=text(raw, "metadata", "uid"),
        version=int(version) if version.isdecimal() else 0,
        generation=integer(raw, "metadata", "generation"),
        deleted=bool(text(raw, "metadata", "deletionTimestamp")),
    )


def _owner(raw: Json) -> str:
    return text(raw, "metadata", "labels", MODEL_LABEL)


def _time(raw: Json, *path: str) -> float | None:
    return parse_timestamp(text(raw, *path))


_NO_CLASS = re.compile(r'RuntimeClass "([^"]*)" not found')


def _refusal(raw: Json) -> Trouble | None:
    """Of a Deployment whose pods the API server does not let be made. Controllers go on trying, so it may heal."""
    conditions = {text(item, "type"): item for item in objects(raw, "status", "conditions")}
    failure = conditions.get("ReplicaFailure", {})
    if text(failure, "status") != "True":
        return None
    message = text(failure, "message")
    if found := _NO_CLASS.search(message):
        advice = f'the cluster has no RuntimeClass "{found[1]}", by which containers get at its GPUs: install the GPU'
        return Trouble("RuntimeClassMissing", f"{advice} vendor's operator, or set spec.runtimeClassName", "Failed")
    phase: Phase = "Failed" if " is forbidden: " in message else "Loading"
    if "exceeded quota" in message:
        phase = "WaitingForCapacity"
    return Trouble("PodRefused", f"the runner's pod cannot be made: {message}", phase)


_HOPELESS = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"})
_HARMLESS = frozenset({"", "ContainerCreating", "PodInitializing"})
_STARTS = 3
"""After this many failed starts a runner is given up on, until one succeeds."""


def _trouble(raw: Json, conditions: Mapping[str, Json]) -> Trouble | None:
    for container in objects(raw, "status", "containerStatuses"):
        waiting = mapping(container, "state", "waiting")
        reason = text(waiting, "reason")
        if reason in _HOPELESS:
            return Trouble(reason, _last_words(container, waiting), "Failed")
        if reason not in _HARMLESS:
            return Trouble(reason, _last_words(container, waiting), _by_starts(container))
        ended = mapping(container, "state", "terminated")
        if integer(ended, "exitCode") != 0:
            return Trouble("RunnerFailed", _last_words(container, ended), _by_starts(container))
    scheduled = conditions.get("PodScheduled", {})
    if text(scheduled, "status") == "False":
        reason = text(scheduled, "reason") or "Unschedulable"
        return Trouble(reason, text(scheduled, "message"), "WaitingForCapacity")
    return None


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
