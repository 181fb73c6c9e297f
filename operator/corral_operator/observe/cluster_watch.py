"""Watch of the nodes and of the pods on them that belong to no Model of this operator.

Both are watched in the whole cluster, whichever namespaces the operator serves. Field selectors leave out pods that
have no node or have terminated. Without permission to watch both, the planner does not consider nodes; a log event says
so once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from corral_core.base.json_fields import JsonObject, get_object, get_str
from corral_kube.client import KubeClient
from corral_kube.errors import Forbidden, KubeError
from corral_kube.list_watch import ListWatch
from corral_operator import logs
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import Kind
from corral_operator.observe.feed import StateFeed
from corral_operator.observe.labels import MODEL_LABEL
from corral_operator.observe.objects import trim_node, trim_other_pod

_SCHEDULED = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"


class ClusterWatch:
    """``allowed`` is None until ``check_access`` has finished."""

    def __init__(self, kube: KubeClient, feed: StateFeed, *, namespaces: Sequence[str]) -> None:
        self._kube = kube
        self._namespaces = frozenset(namespaces)
        self.allowed: bool | None = None
        unreadable = kube.calls.unreadable
        self._nodes = ListWatch(
            kube, api_paths.nodes(), feed.of(Kind.NODES), log=logs.event, trim=trim_node, unreadable=unreadable
        )
        self._pods = ListWatch(
            kube,
            api_paths.pods(),
            feed.of(Kind.OTHER_PODS),
            log=logs.event,
            selector="" if namespaces else f"!{MODEL_LABEL}",
            fields=_SCHEDULED,
            trim=self._trim_pod,
            unreadable=unreadable,
        )

    async def check_access(self) -> None:
        """Ask the API server whether nodes and all pods may be listed; retry until it answers."""
        while self.allowed is None:
            try:
                for path in (api_paths.nodes(), api_paths.pods()):
                    await self._kube.get(f"{path}?limit=1")
            except Forbidden as error:
                logs.event("node_access_denied", level=logging.WARNING, reason=str(error))
                self.allowed = False
            except KubeError as error:
                logs.event("list_failed", level=logging.WARNING, error=str(error))
                await asyncio.sleep(1.0)
            else:
                self.allowed = True

    async def wait_synced(self) -> None:
        """Wait for the first lists; ``run`` must run beside it."""
        await self._nodes.wait_synced()
        await self._pods.wait_synced()

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._nodes.run())
            group.create_task(self._pods.run())

    def _trim_pod(self, raw: JsonObject) -> JsonObject:
        """Trim the pod; a pod of a Model counts nothing here, since the feed of its own kind counts it."""
        trimmed = trim_other_pod(raw)
        return {**trimmed, "node": ""} if self._belongs_to_model(raw) else trimmed

    def _belongs_to_model(self, raw: JsonObject) -> bool:
        if MODEL_LABEL not in get_object(raw, "metadata", "labels"):
            return False
        return not self._namespaces or get_str(raw, "metadata", "namespace") in self._namespaces
