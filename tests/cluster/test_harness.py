"""The test cluster itself: simulated pods, cleanup after a killed run, restart of the API server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.cluster.api import at, condition
from tests.cluster.child_processes import minimal_environment, started_at
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import ControlPlane
from tests.cluster.workspace import Workspace, remove_leftovers
from tests.support.waiting import until

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]


def test_a_deployment_gets_a_ready_pod_on_the_simulated_node(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "create", "deployment", "web", "--image=example.invalid/web")
    pods = f"/api/v1/namespaces/{namespace}/pods"
    until(
        lambda: [condition(pod, "Ready").get("status") for pod in cluster.api.items(pods)] == ["True"],
        30,
        what="a ready pod",
    )
    assert at(cluster.api.items(pods)[0], "status", "podIP")


def test_a_restarted_api_server_has_its_objects(
    cluster: Cluster, namespace: str, own_control_plane: ControlPlane
) -> None:
    own_control_plane.kill_api_server()
    own_control_plane.start_api_server()
    assert at(cluster.api.get(f"/api/v1/namespaces/{namespace}"), "status", "phase") == "Active"


def test_the_processes_of_a_killed_run_end_and_the_next_run_removes_its_folder(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys, time
        from tests.cluster.child_processes import Child
        from tests.cluster.workspace import Workspace
        with Workspace() as workspace:
            child = Child("sleeper", ["sleep", "600"], log=workspace.folder / "sleeper.log")
            print(child.pid, workspace.folder, flush=True)
            time.sleep(600)
    """)
    run = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert run.stdout is not None
        pid, folder = run.stdout.readline().split()
    finally:
        os.kill(run.pid, signal.SIGKILL)
        run.communicate()
    until(lambda: started_at(int(pid)) is None, what="the end of the killed run's process")
    assert Path(folder).exists()
    remove_leftovers()
    assert not Path(folder).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="adding an address needs root")
def test_an_address_is_unique_and_is_released(cluster: Cluster) -> None:
    workspace: Workspace = cluster.workspace
    first, second = workspace.take_address(), workspace.take_address()
    try:
        assert first != second
        assert f" {first}/32 " in _loopback()
    finally:
        workspace.release_address(first)
        workspace.release_address(second)
    assert f" {first}/32 " not in _loopback()


@pytest.mark.parametrize(("required", "status", "outcome"), [("0", 0, "SKIPPED"), ("1", 1, "CORRAL_REQUIRE_CLUSTER=1")])
def test_without_go_the_level_is_skipped_with_the_reason_or_fails_when_required(
    tmp_path: Path, required: str, status: int, outcome: str
) -> None:
    this = f"{Path(__file__).name}::{test_a_deployment_gets_a_ready_pod_on_the_simulated_node.__name__}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"tests/cluster/{this}"],
        cwd=ROOT,
        env=minimal_environment(extra={"PATH": str(tmp_path), "CORRAL_REQUIRE_CLUSTER": required}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stdout
    assert outcome in done.stdout
    assert "Go is not installed" in done.stdout


def _loopback() -> str:
    return subprocess.run(["ip", "addr", "show", "dev", "lo"], capture_output=True, text=True, check=True).stdout
