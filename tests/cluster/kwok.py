"""Simulated nodes: KWOK keeps them ready and runs the pods that are scheduled to them by name only.

KWOK takes care of just the nodes made here, so it can run beside real nodes of an existing cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.cluster.api import Api, Object, at, condition
from tests.cluster.children import Child
from tests.support.waiting import until

STAGES = Path(__file__).with_name("kwok-stages.yaml")
_OURS = "kwok.x-k8s.io/node"
NO_LABELS: Mapping[str, str] = {}
_SIZE = {"cpu": "64", "memory": "512Gi", "pods": "110", "ephemeral-storage": "500Gi"}


class Nodes:
    """KWOK and its nodes; ``stop`` ends the one and deletes the others."""

    def __init__(self, api: Api, *, programs: Path, kubeconfig: Path, folder: Path) -> None:
        self._api = api
        self._names: list[str] = []
        flags = {
            "kubeconfig": kubeconfig,
            "config": STAGES,
            "manage-all-nodes": "false",
            "manage-nodes-with-annotation-selector": f"{_OURS}=fake",
            # Without leases the controllers call a node lost after 40 s, and every pod on it with it.
            "node-lease-duration-seconds": 40,
        }
        command = [str(programs / "kwok"), *(f"--{flag}={value}" for flag, value in flags.items())]
        self.process = Child("kwok", command, log=folder / "kwok.log")

    def add(
        self, name: str, resources: Mapping[str, str] | None = None, *, labels: Mapping[str, str] = NO_LABELS
    ) -> None:
        """A large node with ``resources`` (``{"nvidia.com/gpu": "8"}``) besides; returns when pods can go there."""
        self._api.create("/api/v1/nodes", node(name, _SIZE | dict(resources or {}), labels))
        self._names.append(name)
        until(lambda: self._usable(name), 30, what=f"node {name}'s readiness", interval=0.1)

    def _usable(self, name: str) -> bool:
        found = self._api.get(f"/api/v1/nodes/{name}")
        return condition(found, "Ready").get("status") == "True" and not at(found, "spec", "taints")

    def stop(self) -> None:
        try:
            for name in list(self._names):
                self.remove(name)
        finally:
            self.process.stop()

    def remove(self, name: str) -> None:
        """The node and its pods: nobody else would ever end them."""
        for pod in self._api.items("/api/v1/pods", fieldSelector=f"spec.nodeName={name}"):
            namespace, of_node = at(pod, "metadata", "namespace"), at(pod, "metadata", "name")
            self._api.delete(f"/api/v1/namespaces/{namespace}/pods/{of_node}", gracePeriodSeconds=0)
        self._api.delete(f"/api/v1/nodes/{name}")
        self._names.remove(name)


def node(name: str, size: Mapping[str, str], labels: Mapping[str, str]) -> Object:
    """A Node object that KWOK takes for its own."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {_OURS: "fake"},
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **labels},
        },
        "status": {"allocatable": dict(size), "capacity": dict(size)},
    }
