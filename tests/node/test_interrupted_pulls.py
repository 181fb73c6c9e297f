"""Pulls that are interrupted on a real node: killed pullers, a node that restarts, a full disk."""

from __future__ import annotations

import hashlib

import pytest

from corral_core.base.quantities import format_bytes
from tests.cluster.api import condition
from tests.cluster.fake_volumes import FakeVolumes
from tests.node.pulls import Pull, assert_within, pull_of, weights_size
from tests.node.release import COLD_START, MODELS_NAMESPACE, POLL, Release
from tests.support.ollama_registry import OllamaRegistry
from tests.support.waiting import until

pytestmark = [pytest.mark.node, pytest.mark.timeout(600)]

KILLS = 20
STEP = 3 * 2**20
"""Bytes that the registry sends between two kills."""

HEADER = 8 * 2**20
"""Bytes that the resolver reads at most."""

SAVE_TIMEOUT = 30.0
"""Seconds in which a puller saves what it has received; it saves every two."""


def test_a_puller_killed_twenty_times_brings_the_file_and_asks_for_no_saved_byte_again(
    release: Release, model: str, registry: OllamaRegistry, volumes: FakeVolumes
) -> None:
    pull, size, sent = pull_of(release, model), weights_size(registry), registry.sent
    registry.allow(HEADER)
    release.add(model, source=registry.uri())
    container, asked = "", len(registry.ranges)
    for number in range(KILLS):
        container = pull.container(after=container)
        missing = pull.saved().missing(size)
        _pull_a_step(pull, registry, saved=number % 4 in (1, 2))
        assert_within(registry.ranges[asked:], missing)
        asked = len(registry.ranges)
        if number % 2:  # the kubelet starts a container again at once only the first time
            pull.delete_pod()
        else:
            release.cluster.nodes[0].kill_container(container)
    pull.container(after=container)
    missing = pull.saved().missing(size)
    registry.go_on.set()
    release.wait_phase(model, "Idle")
    assert_within(registry.ranges[asked:], missing)
    assert registry.sent - sent <= HEADER + size + KILLS * STEP
    _assert_published(pull, registry)
    assert release.ask(model).result(COLD_START).ends == 1


def test_a_pull_continues_after_the_restart_of_its_node(
    release: Release, model: str, registry: OllamaRegistry, volumes: FakeVolumes
) -> None:
    pull, node = pull_of(release, model), release.cluster.nodes[0]
    registry.allow(HEADER + 32 * 2**20)
    release.add(model, source=registry.uri())
    container = pull.container()
    until(lambda: pull.saved().size > 16 * 2**20, COLD_START, what="a part of the weights")
    node.end("kubelet")
    try:
        node.kill_container(container)
    finally:
        node.end("containerd")
        missing, asked = pull.saved().missing(weights_size(registry)), len(registry.ranges)
        registry.go_on.set()
        node.start_containerd()
        node.start_kubelet()
    release.wait_phase(model, "Idle")
    assert_within(registry.ranges[asked:], missing)
    _assert_published(pull, registry)
    assert release.ask(model).result(COLD_START).ends == 1


def test_a_model_whose_claim_is_too_small_says_so_and_is_pulled_when_the_claim_grows(
    release: Release, model: str, registry: OllamaRegistry, volumes: FakeVolumes
) -> None:
    release.add(model, source=registry.uri(), cache={"size": "64Mi"})
    _wait_shown(release, model, f"needs {format_bytes(weights_size(registry))}; ", "MiB are free in /store")
    release.edit(model, cache={"size": "256Mi"})
    release.wait_phase(model, "Idle")
    assert release.ask(model).result(COLD_START).ends == 1


def test_a_volume_that_is_full_in_the_middle_of_a_pull_is_reported_until_there_is_room(
    release: Release, model: str, registry: OllamaRegistry, volumes: FakeVolumes
) -> None:
    pull, node = pull_of(release, model), release.cluster.nodes[0]
    registry.allow(HEADER + 16 * 2**20)
    release.add(model, source=registry.uri(), cache={"size": "160Mi"})
    pull.container()
    until(lambda: registry.waits, COLD_START, what="a part of the weights")
    filler = pull.store / "filler"
    done = node.run("fallocate", "--length", "120MiB", filler)
    assert done.returncode == 0, done.stderr
    registry.go_on.set()
    _wait_shown(release, model, f"needs {format_bytes(weights_size(registry))}; ", " are free in /store")
    node.run("rm", filler)
    release.wait_phase(model, "Idle")
    assert release.ask(model).result(COLD_START).ends == 1


def _pull_a_step(pull: Pull, registry: OllamaRegistry, *, saved: bool) -> None:
    """Let the puller receive ``STEP`` bytes of what it lacks, and wait until it has ``saved`` some of them."""
    before = pull.saved().size
    registry.allow(STEP)
    until(lambda: registry.waits, COLD_START, what="the bytes of a step")
    if saved:
        until(lambda: pull.saved().size > before, SAVE_TIMEOUT, what="a saved state")


def _wait_shown(release: Release, model: str, *words: str) -> None:
    """Wait until ``kubectl get models`` and the condition Pulled say that the store is full, with these words."""

    def shown() -> bool:
        listed = release.cluster.kubectl("-n", MODELS_NAMESPACE, "get", "models", model, "-o", "wide")
        found = condition(release.model(model), "Pulled")
        said = all(word in listed and word in str(found.get("message")) for word in words)
        return said and "Failed" in listed and found.get("reason") == "StoreFull"

    until(shown, COLD_START, what=f"a full store of {model}", interval=POLL)


def _assert_published(pull: Pull, registry: OllamaRegistry) -> None:
    """Assert that the store's only blob has the digest of the weights."""
    (blob,) = (pull.store / "blobs").iterdir()
    digest = f"sha256:{hashlib.sha256(blob.read_bytes()).hexdigest()}"
    assert len(registry.blobs[digest]) == weights_size(registry)
