"""Parts are killed, edited and deleted while requests run: warm ones go on, waiting ones are answered, none is lost."""

from __future__ import annotations

from collections.abc import Callable

import ollama
import pytest

from tests.cluster.api import at
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import LOOK, WAKE, Answer, Gateway, Installation
from tests.cluster.standin import StandIn
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]
LONG = 250
"""Tokens of an answer that takes seconds."""

SOON = {"CORRAL_LEASE_DURATION": "3s"}
"""A killed operator cannot give its Lease back; the next one has it after this."""


def test_an_operator_killed_before_the_request_only_delays_it(corral: Installation) -> None:
    _cycle(corral, kill_when=lambda answer: corral.phase("m") == "Idle", ask_first=False)


def test_an_operator_killed_while_the_request_waits_only_delays_it(corral: Installation) -> None:
    _cycle(corral, kill_when=lambda answer: corral.demand("m") == 1)


def test_an_operator_killed_while_the_model_loads_changes_nothing(corral: Installation) -> None:
    _cycle(corral, kill_when=lambda answer: corral.replicas("m") == 1)


def test_an_operator_killed_while_the_model_answers_changes_nothing(corral: Installation) -> None:
    _cycle(corral, kill_when=lambda answer: answer.chunks > 3)


def test_an_operator_killed_before_keep_alive_ran_out_unloads_it_later(corral: Installation) -> None:
    _cycle(corral, kill_when=lambda answer: answer.done is not None)


def test_an_operator_killed_while_the_model_is_unloaded_leaves_it_unloaded(corral: Installation) -> None:
    _cycle(corral, kill_when=lambda answer: answer.done is not None and corral.replicas("m") == 0)


def _cycle(corral: Installation, *, kill_when: Callable[[Answer], bool], ask_first: bool = True) -> None:
    """A request from zero to zero in which the operator is killed at one moment and started again."""
    operator = corral.start_operator("operator-1", **SOON)
    gateway = corral.start_gateway()
    corral.add("m", keepAlive="2s")
    corral.wait_phase("m", "Idle")
    answer = Answer()
    asked = corral.ask(gateway, "m", tokens=60, answer=answer) if ask_first else None
    until(lambda: kill_when(answer), WAKE, what="the moment to kill the operator")
    operator.kill()
    asked = asked or corral.ask(gateway, "m", tokens=60, answer=answer)
    corral.start_operator("operator-2", **SOON)
    done = asked.result(WAKE).done
    assert done is not None
    assert done.eval_count == 60
    corral.wait_replicas("m", 0, 40)
    corral.wait_gone("m")


def test_without_the_operator_a_warm_model_goes_on_answering(corral: Installation) -> None:
    operator = corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("warm")
    corral.ask(gateway, "warm").result(WAKE)
    operator.kill()
    assert corral.ask(gateway, "warm").result(10).done is not None


def test_without_the_api_server_warm_requests_go_on_and_cold_ones_wait_for_it(
    corral: Installation, own_control_plane: ControlPlane
) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("warm")
    corral.add("cold")
    corral.ask(gateway, "warm").result(WAKE)
    through, running = corral.ask_long(gateway, "warm", tokens=LONG)

    own_control_plane.kill_api_server()
    try:
        before = running.chunks
        waiting = corral.ask(gateway, "cold")
        assert corral.ask(gateway, "warm").result(20).done is not None
        assert running.chunks > before
        assert not waiting.done()
    finally:
        own_control_plane.start_api_server()
    assert waiting.result(WAKE).done is not None
    done = through.result(WAKE).done
    assert done is not None
    assert done.eval_count == LONG


def test_a_gateway_started_without_the_api_server_serves_when_it_is_there(
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
    until(lambda: _lists(gateway, "late:latest"), WAKE, what="the Model in the gateway's list", interval=LOOK)
    assert corral.ask(gateway, "late").result(WAKE).done is not None


def test_a_killed_runner_is_started_again_and_serves(corral: Installation, stand_in: StandIn) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("falls")
    corral.ask(gateway, "falls").result(WAKE)
    (pod,) = stand_in.pods(corral.namespace, "falls")
    assert pod.child is not None
    pod.child.kill()
    assert corral.ask(gateway, "falls").result(WAKE).done is not None


def test_a_runner_killed_in_the_middle_of_an_answer_ends_it_with_an_error(
    corral: Installation, stand_in: StandIn
) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("cut")
    asked, _ = corral.ask_long(gateway, "cut", tokens=LONG)
    (pod,) = stand_in.pods(corral.namespace, "cut")
    assert pod.child is not None
    pod.child.kill()
    error = asked.exception(20)
    assert error is not None, "a broken answer must not look like a whole one"


def test_a_model_deleted_while_it_serves_ends_its_answer_first(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("leaving")
    asked, _ = corral.ask_long(gateway, "leaving", tokens=LONG)
    corral.cluster.api.delete(corral.path("leaving"))
    until(lambda: not _lists(gateway, "leaving:latest"), 20, what="the end of the Model", interval=LOOK)
    with gateway.client(10) as client, pytest.raises(ollama.ResponseError) as refused:
        client.generate("leaving", "hello")
    assert refused.value.status_code == 404
    done = asked.result(WAKE).done
    assert done is not None
    assert done.eval_count == LONG
    corral.wait_gone("leaving")


def test_a_model_edited_while_it_serves_rolls_and_loses_no_request(corral: Installation, stand_in: StandIn) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("edited", parallel=2)
    asked, _ = corral.ask_long(gateway, "edited", tokens=LONG)
    (before,) = stand_in.pods(corral.namespace, "edited")
    corral.edit("edited", system="You are a pirate.")
    answered = 0
    while before in stand_in.pods(corral.namespace, "edited"):
        assert corral.ask(gateway, "edited", tokens=2).result(WAKE).done is not None
        answered += 1
    done = asked.result(WAKE).done
    assert done is not None
    assert done.eval_count == LONG
    assert answered > 0
    (after,) = stand_in.pods(corral.namespace, "edited")
    assert after.name != before.name
    assert "pirate" in str(at(after.pod, "spec", "containers", 0, "env"))


def test_a_runner_pod_that_is_deleted_ends_its_answer_and_another_serves(
    corral: Installation, stand_in: StandIn
) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("moved")
    asked, _ = corral.ask_long(gateway, "moved", tokens=LONG)
    (pod,) = stand_in.pods(corral.namespace, "moved")
    corral.cluster.kubectl("-n", corral.namespace, "delete", "pod", pod.name, "--wait=false")
    assert corral.ask(gateway, "moved", tokens=2).result(WAKE).done is not None
    done = asked.result(WAKE).done
    assert done is not None
    assert done.eval_count == LONG
    until(lambda: [each.name for each in stand_in.pods(corral.namespace, "moved")] != [pod.name], WAKE)


def test_a_gateway_that_ends_lets_its_answers_end_first(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("drained")
    asked, _ = corral.ask_long(gateway, "drained", tokens=LONG)
    assert gateway.child.stop(grace=WAKE) == 0
    done = asked.result(5).done
    assert done is not None
    assert done.eval_count == LONG


def test_two_gateways_both_see_and_serve_the_model(corral: Installation) -> None:
    corral.start_operator()
    one, two = corral.start_gateway("gateway-1"), corral.start_gateway("gateway-2")
    corral.add("common")
    answers = [corral.ask(gateway, "common") for gateway in (one, two)]
    until(lambda: corral.demand("common") == 2, 15, what="the demand of both gateways", interval=LOOK / 5)
    assert all(answer.result(WAKE).done is not None for answer in answers)
    assert len(corral.pods("common")) == 1


def _lists(gateway: Gateway, name: str) -> bool:
    with gateway.client(10) as client:
        return any(model.model == name for model in client.list().models)
