"""A node as the scheduler sees it, and what a pod asks of one.

``Node`` and ``Needs`` are made from the API's own objects, once for each change. Everything in a pod's requests counts,
whatever the resource is called, and the pod itself counts as one of ``pods``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corral_core.affinity import Terms, required_terms
from corral_core.jsonfields import Json, dig, mapping, objects, text
from corral_core.quantities import PODS, Amounts, amounts, largest, total

_BARRIERS = ("NoSchedule", "NoExecute")
_PASSING = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
"""Taints of these domains are set by the cluster for a while: not ready, under pressure, new."""

_BY_POD = ("cpu", "memory")
"""What ``spec.resources`` of a whole pod may say in place of its containers, beside hugepages."""


@dataclass(frozen=True, slots=True)
class Taint:
    """One that keeps pods away. ``passing``: the cluster set it for a while."""

    key: str
    value: str
    effect: str

    @property
    def passing(self) -> bool:
        return self.key.startswith(_PASSING)

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


@dataclass(frozen=True, slots=True)
class Toleration:
    """``key`` empty tolerates every taint, ``effect`` empty every effect; ``value`` None every value."""

    key: str
    value: str | None
    effect: str

    def covers(self, taint: Taint) -> bool:
        same_effect = not self.effect or self.effect == taint.effect
        same_key = not self.key or self.key == taint.key
        return same_effect and same_key and (self.value is None or self.value == taint.value)


@dataclass(frozen=True, slots=True)
class Node:
    """``usable``: ready and not cordoned; ``lost``: its kubelet is not heard of any more. ``taints`` are those that
    keep pods away.

    ``best`` is what is allocatable in the node's best state: devices vanish from ``allocatable`` while their plugin is
    started anew, and do not from the node's capacity.
    """

    name: str
    allocatable: Amounts
    labels: Mapping[str, str]
    best: Amounts
    taints: tuple[Taint, ...] = ()
    ready: bool = True
    lost: bool = False
    cordoned: bool = False

    @property
    def usable(self) -> bool:
        return self.ready and not self.cordoned


@dataclass(frozen=True, slots=True)
class Needs:
    """What one pod asks of a node. ``amounts`` are sorted pairs, so that equal needs are equal values."""

    amounts: tuple[tuple[str, int], ...] = ()
    selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    affinity: Terms | None = None


def parse_node(raw: Json) -> Node:
    conditions = {text(item, "type"): text(item, "status") for item in objects(raw, "status", "conditions")}
    taints = (
        Taint(text(item, "key"), text(item, "value"), text(item, "effect")) for item in objects(raw, "spec", "taints")
    )
    allocatable = amounts(mapping(raw, "status", "allocatable"))
    devices = {name: number for name, number in amounts(mapping(raw, "status", "capacity")).items() if "/" in name}
    return Node(
        name=text(raw, "metadata", "name"),
        allocatable=allocatable,
        labels={key: str(value) for key, value in mapping(raw, "metadata", "labels").items()},
        best=largest(allocatable, devices),
        taints=tuple(taint for taint in taints if taint.effect in _BARRIERS),
        ready=conditions.get("Ready") == "True",
        lost=conditions.get("Ready") == "Unknown",
        cordoned=dig(raw, "spec", "unschedulable") is True,
    )


def needs_of(pod: Json) -> Needs:
    """What a pod with this ``spec`` asks of a node."""
    return Needs(
        amounts=tuple(sorted(requests_of(pod).items())),
        selector=tuple(sorted((key, str(value)) for key, value in mapping(pod, "nodeSelector").items())),
        tolerations=tuple(map(_toleration, objects(pod, "tolerations"))),
        affinity=required_terms(mapping(pod, "affinity")),
    )


def _toleration(raw: Json) -> Toleration:
    operator = text(raw, "operator") or "Equal"
    value = None if operator == "Exists" else text(raw, "value")
    return Toleration(text(raw, "key"), value, text(raw, "effect"))


def requests_of(pod: Json) -> dict[str, int]:
    """What a pod with this ``spec`` takes of its node, as the scheduler counts it.

    The containers run together; before them the init containers, one after the other, beside those init containers
    that go on running (``restartPolicy: Always``).
    """
    running = total(_asked(container) for container in objects(pod, "containers"))
    beside: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in objects(pod, "initContainers"):
        asked = _asked(container)
        if text(container, "restartPolicy") == "Always":
            beside = total((beside, asked))
            asked = {}
        peak = largest(peak, total((beside, asked)))
    taken = largest(peak, total((running, beside))) | _of_the_whole(pod)
    return total((taken, amounts(mapping(pod, "overhead")), {PODS: 1}))


def _asked(container: Json) -> dict[str, int]:
    """Its requests; where there is a limit and no request, the limit is the request."""
    resources = mapping(container, "resources")
    return amounts({**mapping(resources, "limits"), **mapping(resources, "requests")})


def _of_the_whole(pod: Json) -> dict[str, int]:
    asked = amounts(mapping(pod, "resources", "requests"))
    return {name: number for name, number in asked.items() if name in _BY_POD or name.startswith("hugepages-")}
