"""Two real nodes, of which one vanishes: power and network at once, and nobody is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster.api import at
from tests.node.load import steady_load
from tests.node.machine import Machine
from tests.node.release import NAMESPACE, WAKE, Release
from tests.support.waiting import until

pytestmark = [pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(600)]

MOVE = 200.0
"""Seconds: Kubernetes itself takes 50 to declare a node lost, and then the pod may stay for 10."""


@pytest.mark.parametrize("along", [[], ["operator"]], ids=["runner", "runner and operator"])
def test_a_model_whose_node_vanishes_comes_up_on_the_other_and_waiting_requests_are_served(
    release: Release, model: str, along: list[str]
) -> None:
    with release.site.further_node() as node:
        with _only(release, node):
            for part in along:
                _move(release, part)
            release.add(model, parallel=4)
            release.ask(model).result(WAKE)
        assert _nodes_of(release, model) == [node.name]
        with steady_load(release, model) as load:
            load.wait_answers(5)
            node.vanish()
            vanished = time.monotonic()
            waiting = [release.ask(model, timeout=MOVE) for _ in range(6)]
            until(
                lambda: _nodes_of(release, model) == ["node-1"], MOVE, what="the runner on the other node", interval=1
            )
            print(f"a runner on the other node {time.monotonic() - vanished:.0f} s after its own vanished")
            assert [answer.result(MOVE).ends for answer in waiting] == [1] * len(waiting)
            load.wait_answers(10)
        load.only_told()
        until(lambda: len(release.pods(model)) == 1, MOVE, what="the lost pod's removal", interval=1)
        print(f"nothing of the lost runner is left {time.monotonic() - vanished:.0f} s after its node vanished")


@contextmanager
def _only(release: Release, node: Machine) -> Iterator[None]:
    """Whatever is scheduled meanwhile goes to this node."""
    others = [other.name for other in release.site.nodes if other is not node]
    release.site.kubectl("cordon", *others)
    try:
        yield
    finally:
        release.site.kubectl("uncordon", *others)


def _move(release: Release, part: str) -> None:
    release.site.kubectl("-n", NAMESPACE, "delete", "pod", *release.own_pods(part), "--wait=true")
    release.site.kubectl("-n", NAMESPACE, "rollout", "status", f"deployment/corral-{part}", "--timeout=60s", timeout=70)


def _nodes_of(release: Release, model: str) -> list[object]:
    """The nodes of the runners that serve."""
    return [at(pod, "spec", "nodeName") for pod in release.ready_pods(model)]
