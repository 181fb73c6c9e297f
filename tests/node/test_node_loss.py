"""Two real nodes, one of which loses power and network at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster.api import at
from tests.node.real_node import RealNode
from tests.node.release import COLD_START, NAMESPACE, Release
from tests.node.steady_load import steady_load
from tests.support.waiting import until

pytestmark = [pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(600)]

FAILOVER = 200.0
"""Seconds: Kubernetes takes 50 to declare a node lost, and the toleration of its pods lasts 10 more."""


@pytest.mark.parametrize("along", [[], ["operator"]], ids=["runner", "runner and operator"])
def test_a_model_moves_to_another_node_and_its_pending_requests_are_served(
    release: Release, model: str, along: list[str]
) -> None:
    with release.cluster.further_node() as node:
        with _only(release, node):
            for part in along:
                _move(release, part)
            release.add(model, parallel=4)
            release.ask(model).result(COLD_START)
        assert _nodes_of(release, model) == [node.name]
        with steady_load(release, model) as load:
            load.wait_answers(5)
            node.vanish()
            vanished = time.monotonic()
            waiting = [release.ask(model, timeout=FAILOVER) for _ in range(6)]
            until(
                lambda: _nodes_of(release, model) == ["node-1"],
                FAILOVER,
                what="the runner on the other node",
                interval=1,
            )
            print(f"runner on the other node {time.monotonic() - vanished:.0f} s after the loss")
            assert [answer.result(FAILOVER).ends for answer in waiting] == [1] * len(waiting)
            load.wait_answers(10)
        load.assert_only_runner_errors()
        until(lambda: len(release.pods(model)) == 1, FAILOVER, what="the lost pod's removal", interval=1)
        print(f"lost pod removed {time.monotonic() - vanished:.0f} s after the loss")


@contextmanager
def _only(release: Release, node: RealNode) -> Iterator[None]:
    """Make the scheduler use only this node inside the block."""
    others = [other.name for other in release.cluster.nodes if other is not node]
    release.cluster.kubectl("cordon", *others)
    try:
        yield
    finally:
        release.cluster.kubectl("uncordon", *others)


def _move(release: Release, part: str) -> None:
    release.cluster.kubectl("-n", NAMESPACE, "delete", "pod", *release.own_pods(part), "--wait=true")
    release.cluster.kubectl(
        "-n", NAMESPACE, "rollout", "status", f"deployment/corral-{part}", "--timeout=60s", timeout=70
    )


def _nodes_of(release: Release, model: str) -> list[object]:
    """Return the nodes of the ready runners."""
    return [at(pod, "spec", "nodeName") for pod in release.ready_pods(model)]
