"""What runs beside the Models: the cluster's nodes, and the pods on them that are not this operator's.

They are watched cluster-wide, whichever namespaces' Models are served, and apart from kopf, which cannot leave out pods
without a node and those that have ended. Of each object only what counts is kept; a kubelet's heartbeats change none of
it and are told to nobody. Without the right to watch them, nodes are not counted at all, and the log says so once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from corral_core.jsonfields import Json, mapping, text
from corral_core.node import parse_node, requests_of
from corral_kube.client import Kube
from corral_kube.errors import Forbidden, KubeError
from corral_kube.reflector import Reflector
from corral_operator import logs, paths
from corral_operator.nodes import Held, NodeLedger
from corral_operator.objects import MODEL_LABEL

_BOUND = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
_CONDITIONS = ("Ready",)


class Surroundings:
    """``changed(wide)`` is called at every change: ``wide`` when a node is another one, else a pod came or went.

    ``allowed`` is None until ``ask`` has been answered.
    """

    def __init__(
        self, kube: Kube, ledger: NodeLedger, *, namespaces: Sequence[str], changed: Callable[[bool], None]
    ) -> None:
        self._kube = kube
        self._ledger = ledger
        self._namespaces = frozenset(namespaces)
        self._changed = changed
        self.allowed: bool | None = None
        self._nodes = Reflector(kube, paths.nodes(), changed=self._node, said=logs.event, trim=_trim_node)
        self._pods = Reflector(
            kube,
            paths.pods(),
            changed=self._pod,
            said=logs.event,
            selector="" if namespaces else f"!{MODEL_LABEL}",
            fields=_BOUND,
            trim=self._trim_pod,
        )

    async def ask(self) -> None:
        """Asks whether nodes and everybody's pods may be watched, until there is an answer."""
        while self.allowed is None:
            try:
                for path in (paths.nodes(), paths.pods()):
                    await self._kube.get(f"{path}?limit=1")
            except Forbidden as error:
                logs.event("nodes_not_counted", level=logging.WARNING, reason=str(error))
                self.allowed = False
            except KubeError as error:
                logs.event("listing_failed", level=logging.WARNING, error=str(error))
                await asyncio.sleep(1.0)
            else:
                self.allowed = True

    async def listed(self) -> None:
        """Until everything was listed once; ``run`` is to run beside it."""
        await self._nodes.wait_listed()
        await self._pods.wait_listed()
        self._ledger.known = True

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._nodes.run())
            group.create_task(self._pods.run())

    def _node(self, before: Json | None, after: Json | None) -> None:
        name = text(after or before, "metadata", "name")
        self._ledger.set_node(name, parse_node(after) if after is not None else None)
        self._changed(True)

    def _pod(self, before: Json | None, after: Json | None) -> None:
        self._ledger.pod(_held(before), _held(after))
        self._changed(False)

    def _trim_pod(self, raw: Json) -> Json:
        node = "" if self._is_ours(raw) else text(raw, "spec", "nodeName")
        return {"metadata": _names(raw), "node": node, "holds": requests_of(mapping(raw, "spec")) if node else {}}

    def _is_ours(self, raw: Json) -> bool:
        """Runner pods of the Models that are served here are known otherwise, with more of them."""
        if MODEL_LABEL not in mapping(raw, "metadata", "labels"):
            return False
        return not self._namespaces or text(raw, "metadata", "namespace") in self._namespaces


def _held(trimmed: Json | None) -> Held | None:
    if trimmed is None:
        return None
    holds = {name: number for name, number in mapping(trimmed, "holds").items() if isinstance(number, int)}
    return Held(text(trimmed, "node"), holds)


def _trim_node(raw: Json) -> Json:
    """What ``parse_node`` reads, without what a heartbeat changes."""
    status = mapping(raw, "status")
    conditions = status.get("conditions")
    ready = [
        {"type": text(item, "type"), "status": text(item, "status")}
        for item in (conditions if isinstance(conditions, list) else [])
        if text(item, "type") in _CONDITIONS
    ]
    spec = {name: value for name, value in mapping(raw, "spec").items() if name in ("taints", "unschedulable")}
    return {
        "metadata": {**_names(raw), "labels": dict(mapping(raw, "metadata", "labels"))},
        "spec": {**spec, "taints": _trim_taints(spec.get("taints"))},
        "status": {
            "allocatable": dict(mapping(status, "allocatable")),
            "capacity": dict(mapping(status, "capacity")),
            "conditions": ready,
        },
    }


def _trim_taints(taints: object) -> list[Json]:
    """Without the times at which they were set."""
    listed = taints if isinstance(taints, list) else []
    return [{name: text(taint, name) for name in ("key", "value", "effect")} for taint in listed]


def _names(raw: Json) -> dict[str, str]:
    return {name: text(raw, "metadata", name) for name in ("namespace", "name")}
