"""Gateways, operator and runners are replaced under steady load without a lost request, also without spare capacity."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.api import at
from tests.node.relabelled_image import relabelled_image
from tests.node.release import COLD_START, NAME, NAMESPACE, ONE_THREAD, Release
from tests.node.steady_load import steady_load
from tests.support.waiting import until

pytestmark = [pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(600)]

NEXT = {"control": "docker.io/corral/control:next", "runner": "docker.io/corral/runner:next"}
"""Image names of the new release."""


@pytest.fixture
def large(release: Release, model: str) -> Iterator[str]:
    """A loaded Model with room on the node for one runner only."""
    name = f"{model}-large"
    node = release.cluster.api.get(f"/api/v1/nodes/{release.cluster.nodes[0].name}")
    memory = int(str(at(node, "status", "allocatable", "memory")).removesuffix("Ki")) * 6 // 10
    release.add(name, parallel=4, pod=ONE_THREAD | {"resources": {"requests": {"memory": f"{memory}Ki"}}})
    release.ask(name).result(COLD_START)
    yield name
    release.remove(name)


@pytest.fixture(scope="module")
def next_images(release: Release) -> dict[str, str]:
    """Images with other names and digests on the node."""
    _, control, runner = release.cluster.archives
    folder = release.cluster.workspace.folder
    made = [
        relabelled_image(control, NEXT["control"], folder=folder),
        relabelled_image(runner, NEXT["runner"], folder=folder),
    ]
    release.cluster.nodes[0].load(made)
    return NEXT


def test_a_gateway_rollout_loses_no_request(release: Release, warm: str) -> None:
    before = set(release.own_pods("gateway"))
    with steady_load(release, warm) as load:
        load.wait_answers(5)
        release.cluster.kubectl("-n", NAMESPACE, "rollout", "restart", "deployment/corral-gateway")
        until(lambda: not before & set(release.own_pods("gateway")), 120, what="the roll's end", interval=0.5)
        load.wait_answers(5)
    load.assert_nothing_lost()


def test_an_edited_model_loses_no_request(release: Release, warm: str) -> None:
    _edit_under_load(release, warm)


def test_an_edited_model_without_room_for_two_runners_loses_no_request(release: Release, large: str) -> None:
    _edit_under_load(release, large)


def test_an_upgrade_to_new_images_and_its_rollback_lose_no_request(
    release: Release, warm: str, large: str, next_images: dict[str, str]
) -> None:
    """Gateways, operator and loaded runners are replaced, one runner without room for two."""
    revision = release.revision()
    old = {"operator": release.images("operator"), "runner": _images(release, warm)}
    digest = _digest(release, warm)
    with steady_load(release, warm) as load, steady_load(release, large) as tight:
        load.wait_answers(5)
        release.upgrade("--set", "image.tag=next")
        assert release.images("gateway") == release.images("operator") == {next_images["control"]}
        _wait_images(release, (warm, large), {next_images["runner"]})
        assert _digest(release, warm) != digest
        load.wait_answers(5)
        tight.wait_answers(5)
        release.cluster.helm("rollback", NAME, str(revision), "-n", NAMESPACE, "--wait", "--timeout", "4m")
        assert release.images("gateway") == release.images("operator") == old["operator"]
        _wait_images(release, (warm, large), old["runner"])
        load.wait_answers(5)
        tight.wait_answers(5)
    load.assert_nothing_lost()
    tight.assert_nothing_lost()


def _edit_under_load(release: Release, model: str) -> None:
    before = _uids(release, model)
    with steady_load(release, model) as load:
        load.wait_answers(5)
        release.edit(model, system="You are a pirate.")
        until(lambda: not before & _uids(release, model), COLD_START, what="the old runner's end", interval=0.2)
        until(lambda: len(release.ready_pods(model)) == 1, COLD_START, what="the new runner", interval=0.2)
        load.wait_answers(5)
    load.assert_nothing_lost()


def _uids(release: Release, model: str) -> set[object]:
    return {at(pod, "metadata", "uid") for pod in release.pods(model)}


def _images(release: Release, model: str) -> set[object]:
    return {at(pod, "spec", "containers", 0, "image") for pod in release.pods(model)}


def _digest(release: Release, model: str) -> object:
    """Return the image id of the Model's runner."""
    (pod,) = release.ready_pods(model)
    return at(pod, "status", "containerStatuses", 0, "imageID")


def _wait_images(release: Release, models: tuple[str, ...], images: set[object]) -> None:
    """Wait until every runner of the Models has these images and is ready."""

    def served() -> bool:
        return all(_images(release, model) == images and release.ready_pods(model) for model in models)

    until(served, COLD_START, what=f"runners with {images}", interval=0.2)
