"""Fixtures of the tests on a real Kubernetes API server.

- ``cluster`` (one for the whole run): ``kubeconfig``, ``kubectl(...)`` and ``api``, with the Model CRD and a simulated
  node.
- ``namespace``: a new namespace for the test.
- ``helm``: the helm program, see ``helm.py``.
- ``fake_kubelet``: runs a real runner process for each runner pod with the annotation ``test.corral.dev/runner``.
- ``corral``: operator and gateway as real processes that watch the test's namespace alone, and queries about Models
  (``installation``).

Run them with ``pytest tests/cluster``. The Kubernetes programs are compiled first, as with ``python -m
tests.cluster.tools``. Without Go or another requirement the tests are skipped with the reason, or fail with it if
CORRAL_REQUIRE_CLUSTER=1. CORRAL_TEST_KUBECONFIG=FILE uses an existing cluster. A failed test shows the logs of every
process.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.cluster import control_plane, foreign_crds
from tests.cluster.cluster import EXISTING, Cluster, open_cluster
from tests.cluster.fake_kubelet import FakeKubelet
from tests.cluster.helm import Helm, helm_in
from tests.cluster.installation import Installation, installation
from tests.cluster.tools import CONTROL_PLANE, ToolsError, programs

_PROGRAMS = pytest.StashKey[Path]()
_MISSING = pytest.StashKey[str]()
_CLUSTER = pytest.StashKey[Cluster]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compile the programs before the first test, outside the time limit of any test."""
    if session.config.option.collectonly or not any(item.get_closest_marker("cluster") for item in session.items):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            built = programs((*CONTROL_PLANE, "helm"), lambda line: print(f"  {line}", flush=True))
            session.config.stash[_PROGRAMS] = built
    except ToolsError as error:
        session.config.stash[_MISSING] = str(error)


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    missing = pytestconfig.stash.get(_MISSING, None) or control_plane.missing()
    if missing is not None:
        _unavailable(missing)
    with open_cluster(pytestconfig.stash[_PROGRAMS]) as opened:
        pytestconfig.stash[_CLUSTER] = opened
        yield opened


@pytest.fixture
def own_control_plane(cluster: Cluster) -> control_plane.ControlPlane:
    """Return the started control plane, for tests that stop parts of it; skip on an existing cluster."""
    if cluster.control_plane is None:
        pytest.skip(f"the API server of the cluster of {EXISTING} must not be stopped")
    return cluster.control_plane


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    with cluster.namespace() as name:
        yield name


@pytest.fixture
def helm(cluster: Cluster, tmp_path: Path) -> Helm:
    return helm_in(cluster, tmp_path)


@pytest.fixture(scope="session")
def foreign_kinds(cluster: Cluster) -> Iterator[None]:
    crds = foreign_crds.manifests()
    cluster.kubectl("apply", "--server-side", "-f", "-", input=crds)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", "-", input=crds)
    yield
    cluster.kubectl("delete", "--wait=false", "-f", "-", input=crds)


@pytest.fixture(scope="session")
def fake_kubelet(cluster: Cluster) -> Iterator[FakeKubelet]:
    if os.geteuid() != 0:
        _unavailable("adding an address for the runner processes needs root")
    if shutil.which("ip") is None:
        _unavailable("ip is not installed (package iproute2)")
    kubelet = FakeKubelet(cluster.api, cluster.workspace)
    yield kubelet
    kubelet.stop()


@pytest.fixture
def corral(cluster: Cluster, namespace: str, fake_kubelet: FakeKubelet) -> Iterator[Installation]:
    """Yield an installation for the test's namespace, with no process started yet."""
    with installation(cluster, namespace, runners=lambda: fake_kubelet.children(namespace)) as installed:
        yield installed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the end of every process's log to the report of a failed test."""
    report = yield
    cluster = item.config.stash.get(_CLUSTER, None)
    if report.failed and cluster is not None:
        for children in cluster.children:
            for child in children():
                report.sections.append((f"log of {child.name}", child.tail()))
    return report


def _unavailable(reason: str) -> NoReturn:
    if os.environ.get("CORRAL_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"CORRAL_REQUIRE_CLUSTER=1, but {reason}", pytrace=False)
    pytest.skip(f"no Kubernetes API server on this machine: {reason}")
