"""Fixtures of the tests on a real Kubernetes API server.

``cluster`` (one for the whole run): ``cluster.kubeconfig``, ``cluster.kubectl(...)``, ``cluster.api``, with the Model
CRD and a simulated node. ``namespace``: a new one for the test. ``stand_in``: runner pods that carry the annotation
``test.corral.dev/runner`` get a real runner process (standin.py). ``corral``: operator and gateway as real processes
that look at the test's namespace alone, and what tests ask about Models (processes.py).

Run them with ``pytest tests/cluster``; the Kubernetes programs are compiled first (``python -m tests.cluster.tools``
does it apart). Where Go or something else is missing they are skipped with the reason, or fail with it when
CORRAL_REQUIRE_CLUSTER=1. CORRAL_TEST_KUBECONFIG=FILE takes an existing cluster instead of the own one.
The logs of every process are shown when a test fails.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.cluster import control_plane
from tests.cluster.cluster import EXISTING, Cluster, open_cluster
from tests.cluster.processes import Installation, installation
from tests.cluster.standin import StandIn
from tests.cluster.tools import CONTROL_PLANE, ToolsError, programs

_PROGRAMS = pytest.StashKey[Path]()
_MISSING = pytest.StashKey[str]()
_CLUSTER = pytest.StashKey[Cluster]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compiles the programs before the first test, so that no test's time limit covers it."""
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
        _cannot(missing)
    with open_cluster(pytestconfig.stash[_PROGRAMS]) as opened:
        pytestconfig.stash[_CLUSTER] = opened
        yield opened


@pytest.fixture
def own_control_plane(cluster: Cluster) -> control_plane.ControlPlane:
    """For tests that stop parts of the control plane: never those of an existing cluster."""
    if cluster.control_plane is None:
        pytest.skip(f"the cluster is {EXISTING}'s, whose API server is left alone")
    return cluster.control_plane


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    with cluster.namespace() as name:
        yield name


@pytest.fixture(scope="session")
def stand_in(cluster: Cluster) -> Iterator[StandIn]:
    if os.geteuid() != 0:
        _cannot("setting an address for the runner processes needs root")
    if shutil.which("ip") is None:
        _cannot("ip is not installed (package iproute2)")
    standing = StandIn(cluster.api, cluster.workspace)
    yield standing
    standing.stop()


@pytest.fixture
def corral(cluster: Cluster, namespace: str, stand_in: StandIn) -> Iterator[Installation]:
    """Processes of Corral for the test's namespace, none started yet."""
    with installation(cluster, namespace, runners=lambda: stand_in.children(namespace)) as installed:
        yield installed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the end of every process's log to the report of a test that failed."""
    report = yield
    cluster = item.config.stash.get(_CLUSTER, None)
    if report.failed and cluster is not None:
        for children in cluster.children:
            for child in children():
                report.sections.append((f"log of {child.name}", child.tail()))
    return report


def _cannot(reason: str) -> NoReturn:
    if os.environ.get("CORRAL_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"CORRAL_REQUIRE_CLUSTER=1, but {reason}", pytrace=False)
    pytest.skip(f"no Kubernetes API server here: {reason}")
