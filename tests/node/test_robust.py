"""Parts are killed, rolled and cut off under steady load: only what ran inside a killed process is lost."""

from __future__ import annotations

from concurrent.futures import Future

import ollama
import pytest

from tests.cluster.api import at
from tests.node.load import CLIENTS, Load, steady_load
from tests.node.release import MODELS_IN, NAMESPACE, WAKE, Answer, Release
from tests.support.waiting import until

pytestmark = [pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def warm(release: Release, model: str) -> str:
    release.add(model, parallel=4)
    release.ask(model).result(WAKE)
    release.wait_phase(model, "Ready")
    return model


def test_a_gateway_pod_that_is_killed_takes_only_its_own_requests_along(release: Release, warm: str) -> None:
    with steady_load(release, warm) as load:
        load.wait_answers(5)
        victim = release.own_pods("gateway")[0]
        _kill(release, NAMESPACE, victim)
        load.wait_answers(30)
    assert len(load.lost) <= CLIENTS, load


def test_a_gateway_roll_loses_nothing(release: Release, warm: str) -> None:
    before = set(release.own_pods("gateway"))
    with steady_load(release, warm) as load:
        load.wait_answers(5)
        release.site.kubectl("-n", NAMESPACE, "rollout", "restart", "deployment/corral-gateway")
        until(lambda: not before & set(release.own_pods("gateway")), 120, what="the roll's end", interval=0.5)
        load.wait_answers(5)
    _nothing_lost(load)


def test_warm_models_answer_while_the_operator_is_away_and_cold_ones_after(release: Release, warm: str) -> None:
    scale = ("-n", NAMESPACE, "scale", "deployment/corral-operator")
    cold = f"{warm}-cold"
    release.add(cold)
    release.wait_phase(cold, "Idle")
    with steady_load(release, warm) as load:
        release.site.kubectl(*scale, "--replicas=0")
        until(lambda: not release.own_pods("operator"), 60, what="the operator's end", interval=0.2)
        waiting = release.ask(cold)
        load.wait_answers(20)
        assert not waiting.done()
        release.site.kubectl(*scale, "--replicas=1")
        assert waiting.result(WAKE).ends == 1
        load.wait_answers(5)
    _nothing_lost(load)
    release.remove(cold)


def test_a_runner_that_is_killed_ends_its_streams_with_an_error_and_serves_what_waits_next(
    release: Release, warm: str
) -> None:
    in_the_runner = 2 * 4  # each of the two gateways sends as many as it has slots
    asked = [release.ask(warm, tokens=200) for _ in range(16)]
    until(lambda: release.demand(warm) == 16 - in_the_runner, 30, what="the waiting requests", interval=0.1)
    (pod,) = release.pods(warm)
    _kill(release, MODELS_IN, str(at(pod, "metadata", "name")))
    ends = [_end(answer) for answer in asked]
    lost = [end for end in ends if end]
    assert 0 < len(lost) <= in_the_runner, ends
    assert all("runner" in end or "model" in end for end in lost), "the clients are told what happened"


def test_an_edited_model_rolls_without_losing_a_request(release: Release, warm: str) -> None:
    before = {at(pod, "metadata", "uid") for pod in release.pods(warm)}
    with steady_load(release, warm) as load:
        load.wait_answers(5)
        release.edit(warm, system="You are a pirate.")
        until(lambda: not before & _uids(release, warm), WAKE, what="the old runner's end", interval=0.2)
        load.wait_answers(5)
    _nothing_lost(load)


def test_an_api_server_that_is_away_stops_no_warm_traffic_and_cold_requests_wait(release: Release, warm: str) -> None:
    control_plane = release.site.control_plane
    cold = f"{warm}-cold"
    release.add(cold)
    release.wait_phase(cold, "Idle")
    with steady_load(release, warm) as load:
        load.wait_answers(5)
        control_plane.kill_api_server()
        try:
            waiting = release.ask(cold)
            load.wait_answers(40)
            assert not waiting.done()
        finally:
            control_plane.start_api_server()
        assert waiting.result(WAKE).ends == 1
        load.wait_answers(5)
    _nothing_lost(load)
    release.remove(cold)


def test_warm_models_answer_while_kubelet_and_containerd_restart(release: Release, warm: str) -> None:
    (node,) = release.site.nodes
    with steady_load(release, warm) as load:
        load.wait_answers(5)
        node.end("kubelet", "containerd")
        load.wait_answers(10)
        node.start_containerd()
        node.start_kubelet()
        load.wait_answers(20)
    _nothing_lost(load)


def _kill(release: Release, namespace: str, pod: str) -> None:
    """SIGKILL to the pod's container, as the kernel would when memory runs out."""
    found = release.site.api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")
    release.site.nodes[0].kill_container(str(at(found, "status", "containerStatuses", 0, "containerID")))


def _end(answer: Future[Answer]) -> str:
    """What its client was told of a request that was lost; empty when it was answered."""
    try:
        assert answer.result(WAKE).ends == 1
    except ollama.ResponseError as error:
        return error.error
    return ""


def _uids(release: Release, model: str) -> set[object]:
    return {at(pod, "metadata", "uid") for pod in release.pods(model)}


def _nothing_lost(load: Load) -> None:
    assert not load.lost, load
    assert not load.refused, "the Service had an endpoint that accepted all the time"
