"""Fixtures of the tests on a real node.

``site`` (one for the whole run): a control plane and a node with the images that were built from the Dockerfile.
``release`` (one too): Corral installed there with Helm, and its clients. Namespaces enforce Pod Security "restricted".
``model``: a name for the test's Model, which is deleted with the test.

Run them with ``make test-node``. Programs and images are built first, when something in them has changed. Where root
or a Debian package is missing they are skipped with the reason, or fail with it when CORRAL_REQUIRE_CLUSTER=1. When a
test fails, the logs of operator, gateways and runners are shown, and the ends of the node's.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.cluster.tools import ToolsError, programs
from tests.node import images, site
from tests.node.release import MODELS_IN, NAMESPACE, WAKE, Release
from tests.node.site import NEEDED, Site, open_site

_BUILT = pytest.StashKey[tuple[Path, list[Path]]]()
_MISSING = pytest.StashKey[str]()
_SITE = pytest.StashKey[Site]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds programs and images before the first test, so that no test's time limit covers it."""
    if session.config.option.collectonly or not any(item.get_closest_marker("node") for item in session.items):
        return
    if reason := site.missing() or images.missing():
        session.config.stash[_MISSING] = reason
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            built = programs(NEEDED, _say), images.archives(_say)
        session.config.stash[_BUILT] = built
    except (ToolsError, images.ImagesError) as error:
        session.config.stash[_MISSING] = str(error)


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


@pytest.fixture(scope="session")
def archives(pytestconfig: pytest.Config) -> dict[str, Path]:
    """The images' archives by name; no node is started for them."""
    missing = pytestconfig.stash.get(_MISSING, None)
    if missing is not None:
        _cannot(missing)
    return {path.name.partition("-")[0]: path for path in pytestconfig.stash[_BUILT][1]}


@pytest.fixture(scope="session", name="site")
def one_site(pytestconfig: pytest.Config) -> Iterator[Site]:
    missing = pytestconfig.stash.get(_MISSING, None)
    if missing is not None:
        _cannot(missing)
    built, archives = pytestconfig.stash[_BUILT]
    with open_site(built, archives) as opened:
        pytestconfig.stash[_SITE] = opened
        yield opened


@pytest.fixture(scope="session")
def release(site: Site) -> Iterator[Release]:
    for namespace in (NAMESPACE, MODELS_IN):
        site.make_namespace(namespace)
    installed = Release(site)
    installed.install()
    yield installed
    installed.close()


@pytest.fixture
def model(release: Release) -> Iterator[str]:
    name = f"smol-{uuid.uuid4().hex[:6]}"
    yield name
    release.remove(name)


@pytest.fixture
def warm(release: Release, model: str) -> str:
    """A Model that is loaded."""
    release.add(model, parallel=4)
    release.ask(model).result(WAKE)
    release.wait_phase(model, "Ready")
    return model


@pytest.fixture
def cold(release: Release, model: str) -> Iterator[str]:
    """Another Model, at zero pods."""
    name = f"{model}-cold"
    release.add(name)
    release.wait_phase(name, "Idle")
    yield name
    release.remove(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    opened = item.config.stash.get(_SITE, None)
    if report.failed and opened is not None:
        report.sections.extend(_logs(opened))
    return report


def _logs(opened: Site) -> Iterator[tuple[str, str]]:
    yield from ((f"log of {child.name}", child.tail(8)) for child in opened.children)
    for namespace in (NAMESPACE, MODELS_IN):
        for what in ("pods", "models.corral.dev", "events"):
            yield f"{what} in {namespace}", _try(opened, "-n", namespace, "get", what)
        for pod in _try(opened, "-n", namespace, "get", "pods", "-o", "name").split():
            yield f"log of {pod}", _try(opened, "-n", namespace, "logs", pod, "--tail=60")


def _try(opened: Site, *arguments: str) -> str:
    try:
        return opened.kubectl(*arguments)
    except AssertionError as error:
        return str(error)


def _cannot(reason: str) -> NoReturn:
    if os.environ.get("CORRAL_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"CORRAL_REQUIRE_CLUSTER=1, but {reason}", pytrace=False)
    pytest.skip(f"no node here: {reason}")
