"""``kubectl corral logs MODEL``: the log of a runner, or of the pod that reads or pulls the weights without one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from corral_core.base.json_fields import JsonObject, get_object, get_objects, get_str
from corral_core.base.timestamps import parse_timestamp
from corral_kube.client import KubeClient
from corral_kubectl.models import CommandFailed, name_of

MODEL_LABEL = "corral.dev/model"
_COMPONENT = "app.kubernetes.io/component"
_ORDER = ("runner", "puller", "resolver", "inspector")


@dataclass(frozen=True, slots=True)
class LogSource:
    pod: str
    container: str


def pods_path(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


async def pods_of(kube: KubeClient, namespace: str, model: str) -> Sequence[JsonObject]:
    """Return the pods of the Model, the oldest first. Raises KubeError."""
    found = await kube.list(pods_path(namespace), selector=f"{MODEL_LABEL}={model}")
    return sorted(found.items, key=lambda pod: get_str(pod, "metadata", "creationTimestamp"))


def log_source(pods: Sequence[JsonObject], model: str) -> LogSource:
    """Return the container whose log explains the Model's state: of runners the newest one that has started.

    A runner pod that still pulls its weights is shown by the container that pulls. Raises CommandFailed without a pod.
    """
    ranked = sorted(pods, key=lambda pod: (_rank(pod), not _started(pod), -_created(pod)))
    if not ranked:
        raise CommandFailed(f"Model {model} has no pod: `kubectl corral why {model}` says why")
    pod = ranked[0]
    inits = get_objects(pod, "status", "initContainerStatuses")
    running = (one for one in inits if not get_object(one, "state", "terminated"))
    names = (get_str(one, "name") for one in (*running, *get_objects(pod, "spec", "containers")))
    return LogSource(name_of(pod), next(names, ""))


async def log_pieces(
    kube: KubeClient, namespace: str, source: LogSource, *, follow: bool, tail: int | None, previous: bool
) -> AsyncIterator[bytes]:
    """Yield the log as it comes. ``tail`` is the number of last lines, None for all. Raises KubeError."""
    query = {"container": source.container, "follow": str(follow).lower(), "previous": str(previous).lower()}
    if tail is not None:
        query["tailLines"] = str(tail)
    async for piece in kube.stream("GET", f"{pods_path(namespace)}/{source.pod}/log", query=query):
        yield piece


def _rank(pod: JsonObject) -> int:
    component = str(get_object(pod, "metadata", "labels").get(_COMPONENT, ""))
    return _ORDER.index(component) if component in _ORDER else len(_ORDER)


def _started(pod: JsonObject) -> bool:
    names = ("initContainerStatuses", "containerStatuses")
    statuses = [one for name in names for one in get_objects(pod, "status", name)]
    return any(not get_object(one, "state", "waiting") for one in statuses)


def _created(pod: JsonObject) -> float:
    return parse_timestamp(get_str(pod, "metadata", "creationTimestamp")) or 0.0
