"""A Model of each scheme, from nothing to a first token, where an intercepting proxy is the only way out."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from urllib.parse import urlsplit

import pytest

from tests.cluster.api import at, condition
from tests.cluster.fake_volumes import FakeVolumes
from tests.node.public_servers import AUTHORITIES, FILE_HOST, SOURCES, PublicServers
from tests.node.public_servers import public_servers as running
from tests.node.pulls import active_pullers
from tests.node.real_cluster import WEIGHTS
from tests.node.real_node import GATEWAY
from tests.node.release import COLD_START, MODELS_NAMESPACE, POLL, Answer, Release
from tests.pull.servers.object_programs import require_all
from tests.support.waiting import until

pytestmark = [pytest.mark.node, pytest.mark.timeout(900)]

ALL_STARTS = 3 * COLD_START
"""Seconds in which a Model must answer while nine are inspected and pulled on two cores."""


@pytest.fixture(scope="module")
def public_servers(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublicServers]:
    """Run the servers, and set the installation's proxy and authorities as a user does."""
    require_all()
    folder, weights = tmp_path_factory.mktemp("public"), release.cluster.workspace.folder / "weights" / WEIGHTS
    with running(folder, weights, proxy_address=GATEWAY) as servers:
        release.cluster.apply(*servers.objects(MODELS_NAMESPACE))
        _upgrade(release, proxy=servers.proxy, authorities=AUTHORITIES)
        yield servers
        _upgrade(release, proxy="", authorities="")
        for item in servers.objects(MODELS_NAMESPACE):
            release.cluster.kubectl(
                "-n", MODELS_NAMESPACE, "delete", str(item["kind"]), str(at(item, "metadata", "name"))
            )


def _upgrade(release: Release, *, proxy: str, authorities: str) -> None:
    values = {"proxy.httpsProxy": proxy, "proxy.caBundle.configMap": authorities}
    release.upgrade(*(f"--set={name}={value}" for name, value in values.items()))


@pytest.fixture
def models(release: Release) -> Iterator[Mapping[str, str]]:
    """Names for a Model of each scheme, and for one without the proxy."""
    made = {kind: f"{kind}-{uuid.uuid4().hex[:6]}" for kind in (*SOURCES, "direct")}
    yield made
    for name in made.values():
        release.cluster.api.delete(release.path(name))
    for name in made.values():
        release.wait_gone(name)


def test_a_model_of_each_scheme_answers_though_the_intercepting_proxy_is_the_only_way_out(
    release: Release, models: Mapping[str, str], public_servers: PublicServers, volumes: FakeVolumes
) -> None:
    for kind, source in SOURCES.items():
        release.add(models[kind], **source, keepAlive="1s")
    release.add(models["direct"], **SOURCES["https"], proxy={"noProxy": FILE_HOST})
    pullers: list[int] = []
    for kind in SOURCES:
        assert _first_answer(release, models[kind], pullers).ends == 1, kind
        assert at(release.model(models[kind]), "status", "source", "pin"), kind
    assert max(pullers) > 1, "several are pulled at once"
    requests = public_servers.requests()
    assert {urlsplit(url).hostname for _, url in requests} == public_servers.hosts
    assert all(client.startswith("10.244.") for client, _ in requests), "the clients are pods"
    until(lambda: FILE_HOST in _inspected(release, models["direct"]), COLD_START, what="an unknown host", interval=POLL)


def _inspected(release: Release, model: str) -> str:
    """Return the message of the condition Inspected if it is False."""
    found = condition(release.model(model), "Inspected")
    return str(found.get("message")) if found.get("status") == "False" else ""


def _first_answer(release: Release, model: str, pullers: list[int]) -> Answer:
    """Ask the model, and add the number of active pullers to ``pullers`` until it has answered."""
    asked: Future[Answer] = release.ask(model, tokens=4, timeout=2 * ALL_STARTS)

    def answered() -> bool:
        pullers.append(active_pullers(release))
        assert asked.done(), at(release.model(model), "status", "conditions")
        return True

    until(answered, ALL_STARTS, what=f"an answer of {model}", interval=POLL)
    return asked.result(0)
