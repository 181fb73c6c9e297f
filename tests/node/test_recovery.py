"""Components are killed or cut off under steady load: only requests inside a killed process are lost."""

from __future__ import annotations

import time
from concurrent.futures import Future

import ollama
import pytest

from tests.cluster.api import at
from tests.node.release import COLD_START, MODELS_NAMESPACE, NAMESPACE, Answer, Release
from tests.node.steady_load import CLIENTS, steady_load
from tests.support.waiting import until

pytestmark = [pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(600)]

OPERATOR_DOWNTIME, API_SERVER_DOWNTIME = 30.0, 20.0
"""Seconds."""


def test_a_killed_gateway_loses_only_its_own_requests(release: Release, warm: str) -> None:
    with steady_load(release, warm) as load:
        load.wait_answers(5)
        victim = release.own_pods("gateway")[0]
        _kill(release, NAMESPACE, victim)
        load.wait_answers(30)
        until(lambda: _restarts(release, victim) == 1, 60, what="the gateway's next start", interval=0.5)
        load.wait_answers(10)
    assert len(load.lost) <= CLIENTS, load


def test_without_operator_loaded_models_answer_and_cold_ones_are_served_afterwards(
    release: Release, warm: str, cold: str
) -> None:
    scale = ("-n", NAMESPACE, "scale", "deployment/corral-operator")
    with steady_load(release, warm) as load:
        load.wait_answers(5)
        (victim,) = release.own_pods("operator")
        _kill(release, NAMESPACE, victim)
        release.cluster.kubectl(*scale, "--replicas=0")
        until(lambda: not release.own_pods("operator"), 60, what="the operator's end", interval=0.2)
        waiting = release.ask(cold)
        load.answers_continuously(OPERATOR_DOWNTIME)
        assert not waiting.done()
        assert release.pods(cold) == []
        release.cluster.kubectl(*scale, "--replicas=1")
        back = time.monotonic()
        assert waiting.result(COLD_START).ends == 1
        print(f"the cold request was answered {time.monotonic() - back:.1f} s after the operator was scaled up")
        load.wait_answers(5)
    load.assert_nothing_lost()


def test_a_killed_runner_ends_its_streams_with_an_error_and_the_next_serves_pending_requests(
    release: Release, warm: str
) -> None:
    in_the_runner = 2 * 4  # at most: two gateways share its four slots once they know of each other
    asked = [release.ask(warm, tokens=200) for _ in range(16)]
    until(lambda: release.demand(warm) >= 16 - in_the_runner, 30, what="the waiting requests", interval=0.1)
    (pod,) = release.pods(warm)
    _kill(release, MODELS_NAMESPACE, str(at(pod, "metadata", "name")))
    ends = [_end(answer) for answer in asked]
    lost = [end for end in ends if end]
    assert 0 < len(lost) <= in_the_runner, ends
    assert all("runner" in end or "model" in end for end in lost), "the errors name the cause"


def test_a_killed_runner_loses_only_its_own_requests(release: Release, warm: str) -> None:
    with steady_load(release, warm) as load:
        load.wait_answers(5)
        (pod,) = release.pods(warm)
        _kill(release, MODELS_NAMESPACE, str(at(pod, "metadata", "name")))
        load.wait_answers(20)
    load.assert_only_runner_errors()


def test_without_api_server_loaded_models_answer_and_cold_requests_wait(release: Release, warm: str, cold: str) -> None:
    control_plane = release.cluster.control_plane
    with steady_load(release, warm) as load:
        load.wait_answers(5)
        control_plane.kill_api_server()
        try:
            waiting = release.ask(cold)
            load.answers_continuously(API_SERVER_DOWNTIME)
            assert not waiting.done()
        finally:
            control_plane.start_api_server()
        back = time.monotonic()
        assert waiting.result(COLD_START).ends == 1
        print(f"the cold request was answered {time.monotonic() - back:.1f} s after the API server was back")
        load.wait_answers(5)
    load.assert_nothing_lost()


def test_loaded_models_answer_while_kubelet_and_containerd_restart(release: Release, warm: str, cold: str) -> None:
    (node,) = release.cluster.nodes
    with steady_load(release, warm) as load:
        load.wait_answers(5)
        node.end("kubelet", "containerd")
        waiting = release.ask(cold)
        load.answers_continuously(5)
        node.start_containerd()
        node.start_kubelet()
        assert waiting.result(COLD_START).ends == 1
        load.wait_answers(20)
    load.assert_nothing_lost()


def _kill(release: Release, namespace: str, pod: str) -> None:
    """Send SIGKILL to the pod's container, as the OOM killer does."""
    found = release.cluster.api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")
    release.cluster.nodes[0].kill_container(str(at(found, "status", "containerStatuses", 0, "containerID")))


def _restarts(release: Release, pod: str) -> object:
    """Return the restart count of the pod's container; None until it is ready."""
    found = release.cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}")
    status = at(found, "status", "containerStatuses", 0)
    return at(status, "restartCount") if at(status, "ready") else None


def _end(answer: Future[Answer]) -> str:
    """Return the error of a lost request; empty if it was answered."""
    try:
        assert answer.result(COLD_START).ends == 1
    except ollama.ResponseError as error:
        return error.error
    return ""
