"""Parts are killed and cut off under steady load: only what ran inside a killed process is lost."""

from __future__ import annotations

import time
from concurrent.futures import Future

import ollama
import pytest

from tests.cluster.api import at
from tests.node.load import CLIENTS, steady_load
from tests.node.release import MODELS_IN, NAMESPACE, WAKE, Answer, Release
from tests.support.waiting import until

pytestmark = [pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(600)]

OPERATOR_AWAY, API_SERVER_AWAY = 30.0, 20.0
"""Seconds."""


def test_a_gateway_pod_that_is_killed_takes_only_its_own_requests_along(release: Release, warm: str) -> None:
    with steady_load(release, warm) as load:
        load.wait_answers(5)
        victim = release.own_pods("gateway")[0]
        _kill(release, NAMESPACE, victim)
        load.wait_answers(30)
        until(lambda: _restarts(release, victim) == 1, 60, what="the gateway's next start", interval=0.5)
        load.wait_answers(10)
    assert len(load.lost) <= CLIENTS, load


def test_while_the_operator_is_killed_and_away_warm_models_answer_and_cold_ones_are_served_afterwards(
    release: Release, warm: str, cold: str
) -> None:
    scale = ("-n", NAMESPACE, "scale", "deployment/corral-operator")
    with steady_load(release, warm) as load:
        load.wait_answers(5)
        (victim,) = release.own_pods("operator")
        _kill(release, NAMESPACE, victim)
        release.site.kubectl(*scale, "--replicas=0")
        until(lambda: not release.own_pods("operator"), 60, what="the operator's end", interval=0.2)
        waiting = release.ask(cold)
        load.keeps_coming(OPERATOR_AWAY)
        assert not waiting.done()
        assert release.pods(cold) == []
        release.site.kubectl(*scale, "--replicas=1")
        back = time.monotonic()
        assert waiting.result(WAKE).ends == 1
        print(f"the cold request was answered {time.monotonic() - back:.1f} s after the operator was asked for again")
        load.wait_answers(5)
    load.nothing_lost()


def test_a_runner_that_is_killed_ends_its_streams_with_an_error_and_serves_what_waits_next(
    release: Release, warm: str
) -> None:
    in_the_runner = 2 * 4  # at most: two gateways share its four slots as soon as they have heard of one another
    asked = [release.ask(warm, tokens=200) for _ in range(16)]
    until(lambda: release.demand(warm) >= 16 - in_the_runner, 30, what="the waiting requests", interval=0.1)
    (pod,) = release.pods(warm)
    _kill(release, MODELS_IN, str(at(pod, "metadata", "name")))
    ends = [_end(answer) for answer in asked]
    lost = [end for end in ends if end]
    assert 0 < len(lost) <= in_the_runner, ends
    assert all("runner" in end or "model" in end for end in lost), "the clients are told what happened"


def test_a_runner_that_is_killed_under_steady_load_takes_only_its_own_requests_along(
    release: Release, warm: str
) -> None:
    with steady_load(release, warm) as load:
        load.wait_answers(5)
        (pod,) = release.pods(warm)
        _kill(release, MODELS_IN, str(at(pod, "metadata", "name")))
        load.wait_answers(20)
    load.only_told()


def test_while_the_api_server_is_away_warm_traffic_goes_on_and_cold_requests_wait(
    release: Release, warm: str, cold: str
) -> None:
    control_plane = release.site.control_plane
    with steady_load(release, warm) as load:
        load.wait_answers(5)
        control_plane.kill_api_server()
        try:
            waiting = release.ask(cold)
            load.keeps_coming(API_SERVER_AWAY)
            assert not waiting.done()
        finally:
            control_plane.start_api_server()
        back = time.monotonic()
        assert waiting.result(WAKE).ends == 1
        print(f"the cold request was answered {time.monotonic() - back:.1f} s after the API server was back")
        load.wait_answers(5)
    load.nothing_lost()


def test_warm_models_answer_while_kubelet_and_containerd_restart(release: Release, warm: str, cold: str) -> None:
    (node,) = release.site.nodes
    with steady_load(release, warm) as load:
        load.wait_answers(5)
        node.end("kubelet", "containerd")
        waiting = release.ask(cold)
        load.keeps_coming(5)
        node.start_containerd()
        node.start_kubelet()
        assert waiting.result(WAKE).ends == 1
        load.wait_answers(20)
    load.nothing_lost()


def _kill(release: Release, namespace: str, pod: str) -> None:
    """SIGKILL to the pod's container, as the kernel would when memory runs out."""
    found = release.site.api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")
    release.site.nodes[0].kill_container(str(at(found, "status", "containerStatuses", 0, "containerID")))


def _restarts(release: Release, pod: str) -> object:
    """How often the pod's container was started again, once it is ready."""
    found = release.site.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}")
    status = at(found, "status", "containerStatuses", 0)
    return at(status, "restartCount") if at(status, "ready") else None


def _end(answer: Future[Answer]) -> str:
    """What its client was told of a request that was lost; empty when it was answered."""
    try:
        assert answer.result(WAKE).ends == 1
    except ollama.ResponseError as error:
        return error.error
    return ""
