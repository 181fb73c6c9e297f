"""Cluster of the tests of this level: one that they start, or an existing one that CORRAL_TEST_KUBECONFIG names.

The user's KUBECONFIG is never read. On an existing cluster the tests create namespaces and simulated nodes and delete
them afterwards; the Model CRD is applied there and stays.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.api import MODELS, Api, at, condition
from tests.cluster.child_processes import Child
from tests.cluster.control_plane import ControlPlane
from tests.cluster.simulated_nodes import SimulatedNodes
from tests.cluster.workspace import Workspace
from tests.support.waiting import until

CRDS = Path(__file__).parents[2] / "crds"
EXISTING = "CORRAL_TEST_KUBECONFIG"


@dataclass
class Cluster:
    """``control_plane`` is None on an existing cluster; ``children`` are the processes whose logs a failure shows."""

    kubeconfig: Path
    programs: Path
    workspace: Workspace
    api: Api
    nodes: SimulatedNodes
    control_plane: ControlPlane | None
    children: list[Callable[[], list[Child]]] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)

    def kubectl(
        self, *arguments: str, input: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator; with ``check`` a failure raises AssertionError with the error output."""
        command = [str(self.programs / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 or not check, f"kubectl {' '.join(arguments)}: {done.stderr.strip()}"
        return done

    @contextmanager
    def namespace(self) -> Iterator[str]:
        """Create a namespace in which pods can be created; at the end delete its Models and the namespace."""
        name = f"test-{uuid.uuid4().hex[:8]}"
        self.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        self.namespaces.append(name)
        try:
            account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
            until(lambda: self.api.find(account), 30, what="the default service account", interval=0.05)
            yield name
        finally:
            models = f"{MODELS}/namespaces/{name}/models"
            self.api.delete(models)
            until(lambda: not self.api.items(models), 30, what="the end of the Models", interval=0.05)
            self.api.delete(f"/api/v1/namespaces/{name}")

    def close(self) -> None:
        """Ends the nodes. On an existing cluster, which lives on, it waits for the end of what the tests made there."""
        self.nodes.stop()
        if self.control_plane is None:
            until(self._empty, 120, what="the end of the tests' namespaces", interval=0.5)

    def _empty(self) -> bool:
        return all(self.api.find(f"/api/v1/namespaces/{name}") is None for name in self.namespaces)


@contextmanager
def open_cluster(programs: Path, *, audited_users: Sequence[str] = ()) -> Iterator[Cluster]:
    """Yield a cluster with the Model CRD and one large simulated node; everything is removed afterwards.

    ``audited_users`` are further administrators, whose requests a started API server writes to its audit log.
    """
    with ExitStack() as stack:
        workspace = stack.enter_context(Workspace())
        existing = os.environ.get(EXISTING)
        users = dict.fromkeys(audited_users, "system:masters")
        folder = workspace.folder / "control-plane"
        control_plane = None if existing else ControlPlane(programs, folder, users=users, audited=audited_users)
        if control_plane is not None:
            stack.callback(control_plane.stop)
            control_plane.start()
        kubeconfig = control_plane.kubeconfig if control_plane else Path(existing or "")
        api = Api(programs / "kubectl", kubeconfig)
        nodes = SimulatedNodes(api, programs=programs, kubeconfig=kubeconfig, folder=workspace.folder)
        cluster = Cluster(kubeconfig, programs, workspace, api, nodes, control_plane)
        stack.callback(cluster.close)
        apply_crds(cluster)
        if control_plane is not None:
            control_plane.start_controllers()
        nodes.add("corral-test-node")
        yield cluster


def apply_crds(cluster: Cluster) -> None:
    """Apply the Model CRD and wait until the API server serves it."""
    cluster.kubectl("apply", "--server-side", "-f", str(CRDS))
    until(lambda: _established(cluster.api), 30, what="the CRD's establishment", interval=0.05)


def _established(api: Api) -> bool:
    crd = api.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/models.corral.dev")
    served = api.find(MODELS) is not None
    return condition(crd, "Established").get("status") == "True" and served and at(crd, "spec") is not None
