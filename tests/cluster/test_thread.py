"""The thread through every part on a real API server: a request wakes a Model at zero, it answers, and goes back."""

from __future__ import annotations

import json

import ollama
import pytest

from tests.cluster.api import at
from tests.cluster.processes import LOOK, WAKE, Installation
from tests.cluster.standin import StandIn
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]


def test_a_request_wakes_a_model_that_answers_and_goes_back_to_zero_and_again(
    corral: Installation, stand_in: StandIn
) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("tale", keepAlive="2s")
    corral.wait_phase("tale", "Idle")
    assert corral.replicas("tale") in (0, None)

    for _ in range(2):
        answer = corral.ask(gateway, "tale", tokens=24)
        until(lambda: corral.demand("tale") == 1, 15, what="the demand of the waiting request", interval=LOOK / 5)
        corral.wait_replicas("tale", 1)
        done = answer.result(WAKE)
        assert done.chunks > 10, "the answer came in pieces, one for each token"
        assert done.done is not None
        assert (done.done.done_reason, done.done.eval_count) == ("length", 24)
        until(lambda: corral.demand("tale") == 0, 15, what="the end of the demand", interval=LOOK)

        corral.wait_replicas("tale", 0, 30)
        corral.wait_gone("tale")
        corral.wait_phase("tale", "Idle")
        assert stand_in.pods(corral.namespace, "tale") == []


def test_a_warm_model_answers_at_once_and_says_until_when_it_stays(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("warm")
    corral.ask(gateway, "warm").result(WAKE)
    assert corral.ask(gateway, "warm").result(10).text
    until(lambda: at(corral.model("warm"), "status", "expiresAt"), 15, what="status.expiresAt", interval=LOOK)
    corral.wait_phase("warm", "Ready")
    with gateway.client() as client:
        running = client.ps().models
    assert [model.model for model in running] == ["warm:latest"]


def test_an_unload_request_sends_the_model_to_zero(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("dropped")
    corral.ask(gateway, "dropped").result(WAKE)
    with gateway.client() as client:
        assert client.generate("dropped", keep_alive=0).done_reason == "unload"
    corral.wait_replicas("dropped", 0, 15)
    corral.wait_gone("dropped")


def test_a_cold_model_is_listed_and_described_from_what_its_runner_told(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("known", keepAlive="0s")
    corral.ask(gateway, "known", tokens=2).result(WAKE)
    corral.wait_gone("known")
    with gateway.client() as client:
        (listed,) = client.list().models
        shown = client.show("known")
    assert listed.model == "known:latest"
    assert listed.details is not None
    assert listed.details.quantization_level == "Q4_1"
    assert shown.capabilities is not None
    assert "completion" in shown.capabilities
    assert corral.replicas("known") == 0, "asking about it does not wake it"


def test_an_unknown_model_is_ollamas_404(corral: Installation) -> None:
    gateway = corral.start_gateway()
    with gateway.client() as client, pytest.raises(ollama.ResponseError) as refused:
        client.generate("nobody", "hello")
    assert (refused.value.status_code, refused.value.error) == (404, "model 'nobody' not found")


def test_kubectl_shows_phase_replicas_until_and_age(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("shown")
    corral.wait_phase("shown", "Idle")
    cold = _table(corral, "shown")
    assert cold["PHASE"] == "Idle"
    corral.ask(gateway, "shown").result(WAKE)
    until(lambda: at(corral.model("shown"), "status", "expiresAt"), 15, what="status.expiresAt", interval=LOOK)
    warm = _table(corral, "shown")
    assert (warm["PHASE"], warm["REPLICAS"]) == ("Ready", "1")
    assert warm["UNTIL"] not in ("", "<none>")
    assert {"NAME", "AGE"} <= warm.keys()


def test_kubectl_scale_fixes_the_replicas(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("scaled", keepAlive="1s")
    corral.wait_phase("scaled", "Idle")
    scale = ("-n", corral.namespace, "scale", "models.corral.dev/scaled")
    corral.cluster.kubectl(*scale, "--replicas=1")
    corral.wait_phase("scaled", "Ready")
    answer = corral.ask(gateway, "scaled").result(WAKE)
    assert answer.done is not None
    selector = at(corral.cluster.api.get(corral.path("scaled") + "/scale"), "status", "selector")
    pods = corral.cluster.kubectl("-n", corral.namespace, "get", "pods", "-l", str(selector), "-o", "json").stdout
    assert len(json.loads(pods)["items"]) == 1, "the scale's selector finds the runner"
    corral.cluster.kubectl(*scale, "--replicas=0")
    corral.wait_replicas("scaled", 0)
    corral.wait_gone("scaled")


def test_a_suspended_model_goes_to_zero_and_refuses_requests_with_the_reason(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("paused")
    corral.ask(gateway, "paused").result(WAKE)
    corral.edit("paused", suspend=True)
    corral.wait_gone("paused")
    corral.wait_phase("paused", "Suspended")
    with gateway.client(10) as client, pytest.raises(ollama.ResponseError) as refused:
        client.generate("paused", "hello")
    assert "suspended" in refused.value.error.lower()
    corral.edit("paused", suspend=False)
    assert corral.ask(gateway, "paused").result(WAKE).done is not None


def test_requests_that_wait_for_one_model_are_all_answered(corral: Installation) -> None:
    gateway = corral.start_gateway()
    corral.add("crowd")
    answers = [corral.ask(gateway, "crowd") for _ in range(6)]
    until(lambda: corral.demand("crowd") == 6, 15, what="all six in the demand", interval=LOOK)
    corral.start_operator()
    ends = [answer.result(WAKE).done for answer in answers]
    assert [end.eval_count for end in ends if end is not None] == [8] * 6
    assert corral.replicas("crowd") == 1


def _table(corral: Installation, model: str) -> dict[str, str]:
    """The columns of ``kubectl get model``, cut where their headings begin."""
    shown = corral.cluster.kubectl("-n", corral.namespace, "get", "models", model).stdout.splitlines()
    heading, row = shown[0], shown[1]
    starts = [
        index for index, letter in enumerate(heading) if letter != " " and (index == 0 or heading[index - 1] == " ")
    ]
    ends = [*starts[1:], max(len(heading), len(row))]
    return {heading[a:b].strip(): row[a:b].strip() for a, b in zip(starts, ends, strict=True)}
