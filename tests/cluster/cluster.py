"""The cluster that the tests of this level run on: its own, or an existing one that CORRAL_TEST_KUBECONFIG names.

A person's KUBECONFIG is never looked at. On an existing cluster the tests make namespaces and simulated nodes of their
own and delete them again; the Model CRD is applied there and stays.
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
from tests.cluster.children import Child
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kwok import Nodes
from tests.cluster.workspace import Workspace
from tests.support.waiting import until

CRDS = Path(__file__).parents[2] / "crds"
EXISTING = "CORRAL_TEST_KUBECONFIG"


@dataclass
class Cluster:
    """What tests need of it. ``control_plane`` is None on an existing cluster; ``children`` are for the logs."""

    kubeconfig: Path
    programs: Path
    workspace: Workspace
    api: Api
    nodes: Nodes
    control_plane: ControlPlane | None
    children: list[Callable[[], list[Child]]] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)

    def kubectl(
        self, *arguments: str, input: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl as the administrator. Raises AssertionError with its words when it fails and ``check`` is on."""
        command = [str(self.programs / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 or not check, f"kubectl {' '.join(arguments)}: {done.stderr.strip()}"
        return done

    @contextmanager
    def namespace(self) -> Iterator[str]:
        """A namespace in which pods can be made; at the end its Models are gone and it goes."""
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
def open_cluster(programs: Path, *, watched_users: Sequence[str] = ()) -> Iterator[Cluster]:
    """A cluster with the Model CRD and one large simulated node; everything ended and given back after.

    ``watched_users`` are further administrators, whose requests the own API server writes to its audit log.
    """
    with ExitStack() as stack:
        workspace = stack.enter_context(Workspace())
        existing = os.environ.get(EXISTING)
        users = dict.fromkeys(watched_users, "system:masters")
        folder = workspace.folder / "control-plane"
        control_plane = None if existing else ControlPlane(programs, folder, users=users, audited=watched_users)
        if control_plane is not None:
            stack.callback(control_plane.stop)
            control_plane.start()
        kubeconfig = control_plane.kubeconfig if control_plane else Path(existing or "")
        api = Api(programs / "kubectl", kubeconfig)
        nodes = Nodes(api, programs=programs, kubeconfig=kubeconfig, folder=workspace.folder)
        cluster = Cluster(kubeconfig, programs, workspace, api, nodes, control_plane)
        stack.callback(cluster.close)
        cluster.kubectl("apply", "--server-side", "-f", str(CRDS))
        until(lambda: _established(api), 30, what="the CRD's establishment", interval=0.05)
        if control_plane is not None:
            control_plane.start_controllers()
        nodes.add("corral-test-node")
        yield cluster


def _established(api: Api) -> bool:
    crd = api.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/models.corral.dev")
    served = api.find(MODELS) is not None
    return condition(crd, "Established").get("status") == "True" and served and at(crd, "spec") is not None
