"""Simulated nodes: KWOK keeps them ready and reports the pods scheduled to them as running.

KWOK manages only the nodes created here, so it can run beside the real nodes of an existing cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.cluster.api import Api, Object, at, condition
from tests.cluster.child_processes import Child
from tests.support.waiting import until

STAGES = Path(__file__).with_name("kwok-stages.yaml")
_ANNOTATION = "kwok.x-k8s.io/node"
NO_LABELS: Mapping[str, str] = {}
_SIZE = {"cpu": "64", "memory": "512Gi", "pods": "110", "ephemeral-storage": "500Gi"}


class SimulatedNodes:
    """The KWOK process and its nodes; ``stop`` deletes the nodes and ends the process."""

    def __init__(self, api: Api, *, programs: Path, kubeconfig: Path, folder: Path) -> None:
        self._api = api
        self._names: list[str] = []
        flags = {
            "kubeconfig": kubeconfig,
            "config": STAGES,
            "manage-all-nodes": "false",
            "manage-nodes-with-annotation-selector": f"{_ANNOTATION}=fake",
            # Without leases the node controller marks a node as unreachable after 40 s.
            "node-lease-duration-seconds": 40,
        }
        command = [str(programs / "kwok"), *(f"--{flag}={value}" for flag, value in flags.items())]
        self.process = Child("kwok", command, log=folder / "kwok.log")

    def add(
        self, name: str, resources: Mapping[str, str] | None = None, *, labels: Mapping[str, str] = NO_LABELS
    ) -> None:
        """Create a large node with ``resources`` (``{"nvidia.com/gpu": "8"}``) and wait until it is schedulable."""
        self._api.create("/api/v1/nodes", node(name, _SIZE | dict(resources or {}), labels))
        self._names.append(name)
        until(lambda: self._schedulable(name), 30, what=f"node {name}'s readiness", interval=0.1)

    def _schedulable(self, name: str) -> bool:
        found = self._api.get(f"/api/v1/nodes/{name}")
        return condition(found, "Ready").get("status") == "True" and not at(found, "spec", "taints")

    def stop(self) -> None:
        try:
            for name in list(self._names):
                self.remove(name)
        finally:
            self.process.stop()

    def remove(self, name: str) -> None:
        """Delete the node and its pods, which no kubelet would end."""
        for pod in self._api.items("/api/v1/pods", fieldSelector=f"spec.nodeName={name}"):
            namespace, of_node = at(pod, "metadata", "namespace"), at(pod, "metadata", "name")
            self._api.delete(f"/api/v1/namespaces/{namespace}/pods/{of_node}", gracePeriodSeconds=0)
        self._api.delete(f"/api/v1/nodes/{name}")
        self._names.remove(name)


def node(name: str, size: Mapping[str, str], labels: Mapping[str, str]) -> Object:
    """Return a Node object that KWOK manages."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {_ANNOTATION: "fake"},
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **labels},
        },
        "status": {"allocatable": dict(size), "capacity": dict(size)},
    }
