"""Fixtures of the tests on a real node.

- ``cluster`` (one per run): a control plane and a node with the images built from the Dockerfile.
- ``release`` (one per run): Corral installed there with Helm, and its clients. Namespaces enforce Pod Security
  "restricted".
- ``model``: a name for the test's Model, which is deleted with the test.
- ``registry`` and ``volumes``: what remote sources need, a registry that pods reach and a provisioner of volumes.

Run these tests with ``make test-node``. Programs and images are built first if their inputs changed. Without root or a
Debian package the tests are skipped with the reason, or fail with it if CORRAL_REQUIRE_CLUSTER=1. A failed test shows
the logs of operator, gateways and runners and the last lines of the node's programs.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

from tests.cluster.fake_volumes import FakeVolumes
from tests.cluster.tools import ToolsError, programs
from tests.node import images, real_cluster
from tests.node.node_programs import containerd_programs, nvidia_runtime
from tests.node.real_cluster import NEEDED, WEIGHTS, RealCluster, open_cluster
from tests.node.real_node import GATEWAY
from tests.node.release import COLD_START, MODELS_NAMESPACE, NAMESPACE, Release
from tests.pull.servers.object_programs import ProgramError, build_all
from tests.support.ollama_registry import OllamaRegistry, ollama_registry

_BUILT = pytest.StashKey[tuple[Path, list[Path]]]()
_MISSING = pytest.StashKey[str]()
_CLUSTER = pytest.StashKey[RealCluster]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build programs and images before the first test, outside the time limit of any test."""
    if session.config.option.collectonly or not any(item.get_closest_marker("node") for item in session.items):
        return
    if reason := real_cluster.missing() or images.missing():
        session.config.stash[_MISSING] = reason
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            containerd_programs(_say)
            nvidia_runtime(_say)
            built = programs(NEEDED, _say), images.archives(_say)
            if any("public_servers" in getattr(item, "fixturenames", ()) for item in session.items):
                with suppress(ProgramError):  # the fixture reports it
                    build_all(_say)
        session.config.stash[_BUILT] = built
    except (ToolsError, images.ImagesError) as error:
        session.config.stash[_MISSING] = str(error)


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


@pytest.fixture(scope="session")
def archives(pytestconfig: pytest.Config) -> dict[str, Path]:
    """The image archives by name; they need no node."""
    missing = pytestconfig.stash.get(_MISSING, None)
    if missing is not None:
        _cannot(missing)
    return {path.name.partition("-")[0]: path for path in pytestconfig.stash[_BUILT][1]}


@pytest.fixture(scope="session", name="cluster")
def one_cluster(pytestconfig: pytest.Config) -> Iterator[RealCluster]:
    missing = pytestconfig.stash.get(_MISSING, None)
    if missing is not None:
        _cannot(missing)
    built, archives = pytestconfig.stash[_BUILT]
    with open_cluster(built, archives) as opened:
        pytestconfig.stash[_CLUSTER] = opened
        yield opened


@pytest.fixture(scope="session")
def release(cluster: RealCluster) -> Iterator[Release]:
    for namespace in (NAMESPACE, MODELS_NAMESPACE):
        cluster.make_namespace(namespace)
    installed = Release(cluster)
    installed.install()
    yield installed
    installed.close()


@pytest.fixture(scope="session")
def served_registry(release: Release) -> Iterator[OllamaRegistry]:
    """Serve the small real model at an address that pods reach."""
    with ollama_registry(address=GATEWAY) as registry:
        registry.push((release.cluster.workspace.folder / "weights" / WEIGHTS).read_bytes())
        yield registry


@pytest.fixture(scope="module")
def reached_registry(release: Release, served_registry: OllamaRegistry) -> Iterator[OllamaRegistry]:
    """Let pullers reach the registry without TLS; other modules install Corral with other values."""
    plain = [{"name": "CORRAL_PLAIN_HTTP_HOSTS", "value": served_registry.host}]
    release.upgrade("--set-json", f"puller.env={json.dumps(plain)}")
    yield served_registry
    release.upgrade("--set-json", "puller.env=[]")


@pytest.fixture
def registry(reached_registry: OllamaRegistry) -> Iterator[OllamaRegistry]:
    """The registry, which sends everything until the test sets a limit."""
    yield reached_registry
    reached_registry.go_on.set()


@pytest.fixture(scope="session")
def volumes(release: Release) -> Iterator[FakeVolumes]:
    """Provide volumes; one of less than a gibibyte is as large as its claim."""
    (node,) = release.cluster.nodes
    limited: list[Path] = []

    def resize(path: Path, size: int) -> None:
        if path in limited:
            node.mount_memory(path, size, change=True)
        elif size < 2**30:
            node.mount_memory(path, size)
            limited.append(path)

    made = FakeVolumes(release.cluster.api, release.cluster.workspace.folder / "volumes", resize=resize)
    yield made
    made.close()
    for path in limited:
        node.run("umount", "--lazy", path)


@pytest.fixture
def model(release: Release) -> Iterator[str]:
    name = f"smol-{uuid.uuid4().hex[:6]}"
    yield name
    release.remove(name)


@pytest.fixture
def warm(release: Release, model: str) -> str:
    """A loaded Model."""
    release.add(model, parallel=4)
    release.ask(model).result(COLD_START)
    release.wait_phase(model, "Ready")
    return model


@pytest.fixture
def cold(release: Release, model: str) -> Iterator[str]:
    """Another Model, at zero replicas."""
    name = f"{model}-cold"
    release.add(name)
    release.wait_phase(name, "Idle")
    yield name
    release.remove(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    opened = item.config.stash.get(_CLUSTER, None)
    if report.failed and opened is not None:
        report.sections.extend(_logs(opened))
    return report


def _logs(opened: RealCluster) -> Iterator[tuple[str, str]]:
    yield from ((f"log of {child.name}", child.tail(8)) for child in opened.children)
    for namespace in (NAMESPACE, MODELS_NAMESPACE):
        for what in ("pods", "models.corral.dev", "events"):
            yield f"{what} in {namespace}", _try(opened, "-n", namespace, "get", what)
        for pod in _try(opened, "-n", namespace, "get", "pods", "-o", "name").split():
            yield f"log of {pod}", _try(opened, "-n", namespace, "logs", pod, "--tail=60")


def _try(opened: RealCluster, *arguments: str) -> str:
    try:
        return opened.kubectl(*arguments)
    except AssertionError as error:
        return str(error)


def _cannot(reason: str) -> NoReturn:
    if os.environ.get("CORRAL_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"CORRAL_REQUIRE_CLUSTER=1, but {reason}", pytrace=False)
    pytest.skip(f"no real node: {reason}")
