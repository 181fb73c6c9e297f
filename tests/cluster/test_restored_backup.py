"""An etcd that is restored from a backup: operator and gateway continue with the older state.

Resource versions begin again at those of the backup. A watch from a later version succeeds and receives nothing. The
test has a control plane of its own, without controllers, because their caches do not survive this.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.api import Api
from tests.cluster.cluster import Cluster, apply_crds
from tests.cluster.control_plane import ControlPlane
from tests.cluster.installation import POLL_INTERVAL, Gateway, installation
from tests.cluster.workspace import Workspace
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]
TIMEOUT = 60.0
LONG_LEASE = {"CORRAL_LEASE_DURATION": "45s"}
"""The Lease outlasts the outage, so the operator cannot recover because it has lost it."""


@pytest.fixture
def own_cluster(cluster: Cluster) -> Iterator[Cluster]:
    """Yield an API server with the Model CRD and one namespace, without controllers and nodes."""
    with Workspace() as workspace:
        plane = ControlPlane(cluster.programs, workspace.folder / "control-plane")
        try:
            plane.start()
            api = Api(cluster.programs / "kubectl", plane.kubeconfig)
            own = Cluster(plane.kubeconfig, cluster.programs, workspace, api, cluster.nodes, plane)
            apply_crds(own)
            api.create("/api/v1/namespaces", {"metadata": {"name": "lab"}})
            api.create("/api/v1/namespaces/lab/serviceaccounts", {"metadata": {"name": "default"}})
            yield own
        finally:
            plane.stop()


def test_operator_and_gateway_recover_after_etcd_was_restored_from_a_backup(own_cluster: Cluster) -> None:
    plane = own_cluster.control_plane
    assert plane is not None
    with installation(own_cluster, "lab", runners=list) as corral:
        operator, gateway = corral.start_operator(**LONG_LEASE), corral.start_gateway()
        corral.add("kept")
        corral.wait_phase("kept", "Pending", TIMEOUT)
        plane.back_up(own_cluster.workspace.folder / "backup")
        corral.add("lost")
        corral.wait_phase("lost", "Pending", TIMEOUT)
        _wait_listed(gateway, {"kept", "lost"})
        for number in range(100):
            corral.edit("kept", system=f"number {number}")
        plane.restore(own_cluster.workspace.folder / "backup")
        _wait_listed(gateway, {"kept"})
        corral.add("new")
        corral.wait_phase("new", "Pending", TIMEOUT)
        _wait_listed(gateway, {"kept", "new"})
        assert operator.alive
        assert gateway.child.alive


def _wait_listed(gateway: Gateway, names: set[str]) -> None:
    def listed() -> bool:
        with gateway.client(10) as client:
            return {str(model.model).partition(":")[0] for model in client.list().models} == names

    until(listed, TIMEOUT, what=f"exactly {names} in the gateway's list", interval=POLL_INTERVAL)
