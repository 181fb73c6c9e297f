"""Requests through all processes on a real API server, from zero replicas and back."""

from __future__ import annotations

import json

import ollama
import pytest

from tests.cluster.api import at
from tests.cluster.fake_kubelet import FakeKubelet
from tests.cluster.installation import POLL_INTERVAL, START_TIMEOUT, Installation
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]


def test_a_request_loads_the_model_which_scales_to_zero_afterwards(
    corral: Installation, fake_kubelet: FakeKubelet
) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("tale", keepAlive="2s")
    corral.wait_phase("tale", "Idle")
    assert corral.replicas("tale") in (0, None)

    for _ in range(2):
        response = corral.send(gateway, "tale", tokens=24)
        until(
            lambda: corral.demand("tale") == 1, 15, what="the demand of the pending request", interval=POLL_INTERVAL / 5
        )
        corral.wait_replicas("tale", 1)
        done = response.result(START_TIMEOUT)
        assert done.chunks > 10, "the response is streamed, token by token"
        assert done.done is not None
        assert (done.done.done_reason, done.done.eval_count) == ("length", 24)
        until(lambda: corral.demand("tale") == 0, 15, what="the end of the demand", interval=POLL_INTERVAL)

        corral.wait_replicas("tale", 0, 30)
        corral.wait_gone("tale")
        corral.wait_phase("tale", "Idle")
        assert fake_kubelet.pods(corral.namespace, "tale") == []


def test_a_loaded_model_responds_at_once_and_has_an_expiry(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("warm")
    corral.send(gateway, "warm").result(START_TIMEOUT)
    assert corral.send(gateway, "warm").result(10).text
    until(lambda: at(corral.model("warm"), "status", "expiresAt"), 15, what="status.expiresAt", interval=POLL_INTERVAL)
    corral.wait_phase("warm", "Ready")
    with gateway.client() as client:
        running = client.ps().models
    assert [model.model for model in running] == ["warm:latest"]


def test_an_unload_request_scales_the_model_to_zero(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("dropped")
    corral.send(gateway, "dropped").result(START_TIMEOUT)
    with gateway.client() as client:
        assert client.generate("dropped", keep_alive=0).done_reason == "unload"
    corral.wait_replicas("dropped", 0, 15)
    corral.wait_gone("dropped")


def test_a_model_at_zero_replicas_is_listed_and_shown_from_its_status(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("known", keepAlive="0s")
    corral.send(gateway, "known", tokens=2).result(START_TIMEOUT)
    corral.wait_gone("known")
    with gateway.client() as client:
        (listed,) = client.list().models
        shown = client.show("known")
    assert listed.model == "known:latest"
    assert listed.details is not None
    assert listed.details.quantization_level == "Q4_1"
    assert shown.capabilities is not None
    assert "completion" in shown.capabilities
    assert corral.replicas("known") == 0, "a query does not load the model"


def test_an_unknown_model_is_not_found_as_in_ollama(corral: Installation) -> None:
    gateway = corral.start_gateway()
    with gateway.client() as client, pytest.raises(ollama.ResponseError) as rejected:
        client.generate("unknown", "hello")
    assert (rejected.value.status_code, rejected.value.error) == (404, "model 'unknown' not found")


def test_kubectl_shows_readiness_phase_replicas_and_when_the_model_is_unloaded(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("shown")
    wait = ("-n", corral.namespace, "wait", "--timeout=60s", "models.corral.dev/shown")
    corral.cluster.kubectl(*wait, "--for=condition=Ready")
    cold = _table(corral, "shown")
    assert (cold["READY"], cold["PHASE"], cold["REPLICAS"]) == ("True", "Idle", "0/0")
    corral.send(gateway, "shown").result(START_TIMEOUT)
    until(lambda: at(corral.model("shown"), "status", "keepAlive"), 15, what="status.keepAlive", interval=POLL_INTERVAL)
    corral.cluster.kubectl(*wait, "--for=condition=Loaded")
    warm = _table(corral, "shown")
    assert (warm["READY"], warm["PHASE"], warm["REPLICAS"]) == ("True", "Ready", "1/1")
    assert warm["KEEP-ALIVE"] not in ("", "<none>")
    assert {"NAME", "AGE"} <= warm.keys()
    reasons = {"PlacementChosen", "Idle", "Loading", "Ready"}
    until(lambda: reasons <= _events(corral, "shown"), 15, what="the Events", interval=POLL_INTERVAL)


def test_kubectl_scale_sets_the_replicas(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("scaled", keepAlive="1s")
    corral.wait_phase("scaled", "Idle")
    scale = ("-n", corral.namespace, "scale", "models.corral.dev/scaled")
    corral.cluster.kubectl(*scale, "--replicas=1")
    corral.wait_phase("scaled", "Ready")
    response = corral.send(gateway, "scaled").result(START_TIMEOUT)
    assert response.done is not None
    selector = at(corral.cluster.api.get(corral.path("scaled") + "/scale"), "status", "selector")
    pods = corral.cluster.kubectl("-n", corral.namespace, "get", "pods", "-l", str(selector), "-o", "json").stdout
    assert len(json.loads(pods)["items"]) == 1, "the selector of the scale subresource matches the runner"
    corral.cluster.kubectl(*scale, "--replicas=0")
    corral.wait_replicas("scaled", 0)
    corral.wait_gone("scaled")


def test_a_suspended_model_scales_to_zero_and_rejects_requests_with_the_reason(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("paused")
    corral.send(gateway, "paused").result(START_TIMEOUT)
    corral.edit("paused", suspend=True)
    corral.wait_gone("paused")
    corral.wait_phase("paused", "Suspended")
    with gateway.client(10) as client, pytest.raises(ollama.ResponseError) as rejected:
        client.generate("paused", "hello")
    assert "suspended" in rejected.value.error.lower()
    corral.edit("paused", suspend=False)
    assert corral.send(gateway, "paused").result(START_TIMEOUT).done is not None


def test_all_pending_requests_of_a_model_are_served(corral: Installation) -> None:
    gateway = corral.start_gateway()
    corral.add("crowd")
    responses = [corral.send(gateway, "crowd") for _ in range(6)]
    until(lambda: corral.demand("crowd") == 6, 15, what="all six in the demand", interval=POLL_INTERVAL)
    corral.start_operator()
    ends = [response.result(START_TIMEOUT).done for response in responses]
    assert [end.eval_count for end in ends if end is not None] == [8] * 6
    assert corral.replicas("crowd") == 1


def _events(corral: Installation, model: str) -> set[str]:
    """Return the reasons of the Model's Events."""
    found = corral.cluster.api.items(f"/api/v1/namespaces/{corral.namespace}/events")
    return {str(event["reason"]) for event in found if at(event, "involvedObject", "name") == model}


def _table(corral: Installation, model: str) -> dict[str, str]:
    """Return the columns of ``kubectl get model``, split where the headings begin."""
    shown = corral.cluster.kubectl("-n", corral.namespace, "get", "models", model).stdout.splitlines()
    heading, row = shown[0], shown[1]
    starts = [
        index for index, letter in enumerate(heading) if letter != " " and (index == 0 or heading[index - 1] == " ")
    ]
    ends = [*starts[1:], max(len(heading), len(row))]
    return {heading[a:b].strip(): row[a:b].strip() for a, b in zip(starts, ends, strict=True)}
