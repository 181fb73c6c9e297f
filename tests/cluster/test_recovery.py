"""Recovery: processes and objects are killed, edited or deleted while requests run, and no request is lost."""

from __future__ import annotations

from collections.abc import Callable

import ollama
import pytest

from tests.cluster.api import at
from tests.cluster.control_plane import ControlPlane
from tests.cluster.fake_kubelet import FakeKubelet
from tests.cluster.installation import POLL_INTERVAL, START_TIMEOUT, Gateway, Installation, StreamedResponse
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]
LONG = 250
"""Tokens of a response that takes seconds."""

SHORT_LEASE = {"CORRAL_LEASE_DURATION": "3s"}
"""A killed operator does not release its Lease; the next one acquires it after this time."""


def test_an_operator_killed_before_the_request_delays_it_only(corral: Installation) -> None:
    _cycle(corral, kill_when=lambda response: corral.phase("m") == "Idle", send_first=False)


def test_an_operator_killed_while_the_request_is_pending_delays_it_only(corral: Installation) -> None:
    _cycle(corral, kill_when=lambda response: corral.demand("m") == 1)


def test_an_operator_killed_while_the_model_loads_does_not_affect_the_request(corral: Installation) -> None:
    _cycle(corral, kill_when=lambda response: corral.replicas("m") == 1)


def test_an_operator_killed_while_the_model_responds_does_not_affect_the_response(corral: Installation) -> None:
    _cycle(corral, kill_when=lambda response: response.chunks > 3)


def test_after_an_operator_was_killed_before_the_expiry_the_model_is_unloaded_later(corral: Installation) -> None:
    _cycle(corral, kill_when=lambda response: response.done is not None)


def test_after_an_operator_was_killed_during_the_unload_the_model_stays_unloaded(corral: Installation) -> None:
    _cycle(corral, kill_when=lambda response: response.done is not None and corral.replicas("m") == 0)


def _cycle(corral: Installation, *, kill_when: Callable[[StreamedResponse], bool], send_first: bool = True) -> None:
    """Serve a request from zero replicas and back; kill the operator at one moment and start another."""
    operator = corral.start_operator("operator-1", **SHORT_LEASE)
    gateway = corral.start_gateway()
    corral.add("m", keepAlive="2s")
    corral.wait_phase("m", "Idle")
    response = StreamedResponse()
    pending = corral.send(gateway, "m", tokens=60, response=response) if send_first else None
    until(lambda: kill_when(response), START_TIMEOUT, what="the moment to kill the operator")
    operator.kill()
    pending = pending or corral.send(gateway, "m", tokens=60, response=response)
    corral.start_operator("operator-2", **SHORT_LEASE)
    done = pending.result(START_TIMEOUT).done
    assert done is not None
    assert done.eval_count == 60
    corral.wait_replicas("m", 0, 40)
    corral.wait_gone("m")


def test_a_loaded_model_serves_without_the_operator(corral: Installation) -> None:
    operator = corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("warm")
    corral.send(gateway, "warm").result(START_TIMEOUT)
    operator.kill()
    assert corral.send(gateway, "warm").result(10).done is not None


def test_without_the_api_server_loaded_models_serve_and_other_requests_are_queued(
    corral: Installation, own_control_plane: ControlPlane
) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("warm")
    corral.add("cold")
    corral.send(gateway, "warm").result(START_TIMEOUT)
    through, running = corral.stream(gateway, "warm", tokens=LONG)

    own_control_plane.kill_api_server()
    try:
        before = running.chunks
        waiting = corral.send(gateway, "cold")
        assert corral.send(gateway, "warm").result(20).done is not None
        assert running.chunks > before
        assert not waiting.done()
    finally:
        own_control_plane.start_api_server()
    assert waiting.result(START_TIMEOUT).done is not None
    done = through.result(START_TIMEOUT).done
    assert done is not None
    assert done.eval_count == LONG


def test_a_gateway_started_without_the_api_server_serves_once_it_is_reachable(
    corral: Installation, own_control_plane: ControlPlane
) -> None:
    corral.start_operator()
    corral.add("late")
    corral.wait_phase("late", "Idle")
    own_control_plane.kill_api_server()
    try:
        gateway = corral.start_gateway()
    finally:
        own_control_plane.start_api_server()
    until(
        lambda: _lists(gateway, "late:latest"),
        START_TIMEOUT,
        what="the Model in the gateway's list",
        interval=POLL_INTERVAL,
    )
    assert corral.send(gateway, "late").result(START_TIMEOUT).done is not None


def test_a_killed_runner_is_restarted_and_serves(corral: Installation, fake_kubelet: FakeKubelet) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("falls")
    corral.send(gateway, "falls").result(START_TIMEOUT)
    (pod,) = fake_kubelet.pods(corral.namespace, "falls")
    assert pod.child is not None
    pod.child.kill()
    assert corral.send(gateway, "falls").result(START_TIMEOUT).done is not None


def test_a_runner_killed_during_a_response_ends_it_with_an_error(
    corral: Installation, fake_kubelet: FakeKubelet
) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("cut")
    pending, _ = corral.stream(gateway, "cut", tokens=LONG)
    (pod,) = fake_kubelet.pods(corral.namespace, "cut")
    assert pod.child is not None
    pod.child.kill()
    error = pending.exception(20)
    assert error is not None, "a truncated response must not look complete"


def test_a_deleted_model_completes_its_response_first(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("leaving")
    pending, _ = corral.stream(gateway, "leaving", tokens=LONG)
    corral.cluster.api.delete(corral.path("leaving"))
    until(lambda: not _lists(gateway, "leaving:latest"), 20, what="the end of the Model", interval=POLL_INTERVAL)
    with gateway.client(10) as client, pytest.raises(ollama.ResponseError) as rejected:
        client.generate("leaving", "hello")
    assert rejected.value.status_code == 404
    done = pending.result(START_TIMEOUT).done
    assert done is not None
    assert done.eval_count == LONG
    corral.wait_gone("leaving")


def test_an_edited_model_is_rolled_out_without_a_lost_request(corral: Installation, fake_kubelet: FakeKubelet) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("edited", parallel=2)
    pending, _ = corral.stream(gateway, "edited", tokens=LONG)
    (before,) = fake_kubelet.pods(corral.namespace, "edited")
    corral.edit("edited", system="You are a pirate.")
    answered = 0
    while before in fake_kubelet.pods(corral.namespace, "edited"):
        assert corral.send(gateway, "edited", tokens=2).result(START_TIMEOUT).done is not None
        answered += 1
    done = pending.result(START_TIMEOUT).done
    assert done is not None
    assert done.eval_count == LONG
    assert answered > 0
    (after,) = fake_kubelet.pods(corral.namespace, "edited")
    assert after.name != before.name
    assert "pirate" in str(at(after.pod, "spec", "containers", 0, "env"))


def test_a_deleted_runner_pod_completes_its_response_and_another_serves(
    corral: Installation, fake_kubelet: FakeKubelet
) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("moved")
    pending, _ = corral.stream(gateway, "moved", tokens=LONG)
    (pod,) = fake_kubelet.pods(corral.namespace, "moved")
    corral.cluster.kubectl("-n", corral.namespace, "delete", "pod", pod.name, "--wait=false")
    assert corral.send(gateway, "moved", tokens=2).result(START_TIMEOUT).done is not None
    done = pending.result(START_TIMEOUT).done
    assert done is not None
    assert done.eval_count == LONG
    until(lambda: [each.name for each in fake_kubelet.pods(corral.namespace, "moved")] != [pod.name], START_TIMEOUT)


def test_a_stopped_gateway_completes_its_responses_first(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("drained")
    pending, _ = corral.stream(gateway, "drained", tokens=LONG)
    assert gateway.child.stop(grace=START_TIMEOUT) == 0
    done = pending.result(5).done
    assert done is not None
    assert done.eval_count == LONG


def test_two_gateways_serve_one_model(corral: Installation) -> None:
    corral.start_operator()
    one, two = corral.start_gateway("gateway-1"), corral.start_gateway("gateway-2")
    corral.add("common")
    responses = [corral.send(gateway, "common") for gateway in (one, two)]
    until(lambda: corral.demand("common") == 2, 15, what="the demand of both gateways", interval=POLL_INTERVAL / 5)
    assert all(response.result(START_TIMEOUT).done is not None for response in responses)
    assert len(corral.pods("common")) == 1


def _lists(gateway: Gateway, name: str) -> bool:
    with gateway.client(10) as client:
        return any(model.model == name for model in client.list().models)
