"""Eviction with a limit of one loaded model: no response is cut before the eviction timeout."""

from __future__ import annotations

import ollama
import pytest

from corral_server.gateway.queueing.dispatcher import EVICTED
from tests.cluster.installation import POLL_INTERVAL, START_TIMEOUT, Installation, StreamedResponse
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]
ONE_LOADED_MODEL = {"OLLAMA_MAX_LOADED_MODELS": "1"}
LONG = 400
"""Tokens of a response that takes seconds."""


def test_an_idle_model_is_evicted_and_loaded_again_by_the_next_request(corral: Installation) -> None:
    corral.start_operator(**ONE_LOADED_MODEL)
    gateway = corral.start_gateway()
    corral.add("one")
    corral.add("two")
    for name, other in (("one", "two"), ("two", "one"), ("one", "two")):
        assert corral.send(gateway, name).result(START_TIMEOUT).done is not None
        assert corral.replicas(name) == 1
        assert corral.replicas(other) == 0


def test_a_busy_victim_completes_its_response_accepts_no_new_request_and_is_evicted(corral: Installation) -> None:
    corral.start_operator(**ONE_LOADED_MODEL)
    gateway = corral.start_gateway()
    corral.add("busy")
    corral.add("next")
    running = StreamedResponse()
    first = corral.send(gateway, "busy", tokens=LONG, response=running)
    until(lambda: running.chunks > 3, START_TIMEOUT, what="a response that runs")
    second = corral.send(gateway, "next")
    until(
        lambda: corral.phase("busy") == "Draining",
        15,
        what="the phase Draining of the busy one",
        interval=POLL_INTERVAL / 2,
    )
    late = corral.send(gateway, "busy")
    done = first.result(START_TIMEOUT).done
    assert done is not None
    assert done.eval_count == LONG
    assert second.result(START_TIMEOUT).done is not None
    assert late.result(START_TIMEOUT).done is not None, "the request was queued and served later"


def test_a_response_that_outlasts_the_eviction_timeout_ends_with_the_reason(corral: Installation) -> None:
    corral.start_operator(**ONE_LOADED_MODEL, CORRAL_EVICTION_TIMEOUT="1s")
    gateway = corral.start_gateway()
    corral.add("endless")
    corral.add("next")
    first, _ = corral.stream(gateway, "endless", tokens=100 * LONG)
    second = corral.send(gateway, "next")
    with pytest.raises(ollama.ResponseError) as failed:
        first.result(START_TIMEOUT)
    assert failed.value.error == EVICTED
    assert second.result(START_TIMEOUT).done is not None
    assert corral.replicas("endless") == 0
