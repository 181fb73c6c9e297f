"""Gateways, operator and runners are replaced under steady load: no request is lost, also where there is no room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.api import at
from tests.node.load import steady_load
from tests.node.relabel import relabelled
from tests.node.release import NAME, NAMESPACE, ONE_THREAD, WAKE, Release
from tests.support.waiting import until

pytestmark = [pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(600)]

NEXT = {"control": "docker.io/corral/control:next", "runner": "docker.io/corral/runner:next"}
"""The names of the new release's images."""


@pytest.fixture
def wide(release: Release, model: str) -> Iterator[str]:
    """A warm Model of which the node has room for one runner only."""
    name = f"{model}-wide"
    node = release.site.api.get(f"/api/v1/nodes/{release.site.nodes[0].name}")
    memory = int(str(at(node, "status", "allocatable", "memory")).removesuffix("Ki")) * 6 // 10
    release.add(name, parallel=4, pod=ONE_THREAD | {"resources": {"requests": {"memory": f"{memory}Ki"}}})
    release.ask(name).result(WAKE)
    yield name
    release.remove(name)


@pytest.fixture(scope="module")
def next_images(release: Release) -> dict[str, str]:
    """Images of other names and digests are on the node."""
    _, control, runner = release.site.archives
    folder = release.site.workspace.folder
    made = [relabelled(control, NEXT["control"], folder=folder), relabelled(runner, NEXT["runner"], folder=folder)]
    release.site.nodes[0].load(made)
    return NEXT


def test_a_gateway_roll_loses_nothing(release: Release, warm: str) -> None:
    before = set(release.own_pods("gateway"))
    with steady_load(release, warm) as load:
        load.wait_answers(5)
        release.site.kubectl("-n", NAMESPACE, "rollout", "restart", "deployment/corral-gateway")
        until(lambda: not before & set(release.own_pods("gateway")), 120, what="the roll's end", interval=0.5)
        load.wait_answers(5)
    load.nothing_lost()


def test_an_edited_model_rolls_without_losing_a_request(release: Release, warm: str) -> None:
    _edit_under_load(release, warm)


def test_an_edited_model_rolls_without_losing_a_request_where_there_is_no_room_for_two(
    release: Release, wide: str
) -> None:
    _edit_under_load(release, wide)


def test_an_upgrade_to_new_images_and_the_way_back_lose_nothing(
    release: Release, warm: str, wide: str, next_images: dict[str, str]
) -> None:
    """Gateways, operator and the loaded runners are all replaced, one of these where there is no room for two."""
    revision = release.revision()
    old = {"operator": release.images("operator"), "runner": _images(release, warm)}
    digest = _digest(release, warm)
    with steady_load(release, warm) as load, steady_load(release, wide) as tight:
        load.wait_answers(5)
        release.upgrade("--set", f"images.control={NEXT['control']}", "--set", f"images.runner={NEXT['runner']}")
        assert release.images("gateway") == release.images("operator") == {next_images["control"]}
        _wait_images(release, (warm, wide), {next_images["runner"]})
        assert _digest(release, warm) != digest
        load.wait_answers(5)
        tight.wait_answers(5)
        release.site.helm("rollback", NAME, str(revision), "-n", NAMESPACE, "--wait", "--timeout", "4m")
        assert release.images("gateway") == release.images("operator") == old["operator"]
        _wait_images(release, (warm, wide), old["runner"])
        load.wait_answers(5)
        tight.wait_answers(5)
    load.nothing_lost()
    tight.nothing_lost()


def _edit_under_load(release: Release, model: str) -> None:
    before = _uids(release, model)
    with steady_load(release, model) as load:
        load.wait_answers(5)
        release.edit(model, system="You are a pirate.")
        until(lambda: not before & _uids(release, model), WAKE, what="the old runner's end", interval=0.2)
        until(lambda: len(release.ready_pods(model)) == 1, WAKE, what="the new runner", interval=0.2)
        load.wait_answers(5)
    load.nothing_lost()


def _uids(release: Release, model: str) -> set[object]:
    return {at(pod, "metadata", "uid") for pod in release.pods(model)}


def _images(release: Release, model: str) -> set[object]:
    return {at(pod, "spec", "containers", 0, "image") for pod in release.pods(model)}


def _digest(release: Release, model: str) -> object:
    """What the Model's runner really runs."""
    (pod,) = release.ready_pods(model)
    return at(pod, "status", "containerStatuses", 0, "imageID")


def _wait_images(release: Release, models: tuple[str, ...], images: set[object]) -> None:
    """Until every runner of the Models has these and serves."""

    def served() -> bool:
        return all(_images(release, model) == images and release.ready_pods(model) for model in models)

    until(served, WAKE, what=f"runners with {images}", interval=0.2)
