"""Requests through every component on a real node: Helm, images, kubelet, a volume and common clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

import ollama
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from tests.cluster.api import at
from tests.node.ordered_requests import ask_in_order
from tests.node.release import COLD_START, MODELS_NAMESPACE, POLL, Release
from tests.support.waiting import until

pytestmark = [pytest.mark.node, pytest.mark.timeout(600)]

QUESTION = "Name three colours."


def test_a_cold_model_answers_a_streamed_chat_through_the_service(release: Release, model: str) -> None:
    release.add(model)
    release.wait_phase(model, "Idle")
    assert release.pods(model) == []
    shown = release.cluster.follow(
        f"phases-{model}", "-n", MODELS_NAMESPACE, "get", "models", model, "--watch", "--no-headers"
    )
    try:
        until(lambda: _phases(shown.text()) == ["Idle"], 30, what="kubectl's Idle", interval=POLL)
        with release.ollama() as client:
            parts = list(client.chat(model, [ollama.Message(role="user", content=QUESTION)], stream=True))
            until(lambda: "Ready" in _phases(shown.text()), 30, what="kubectl's Ready", interval=POLL)
            running = client.ps().models
            client.generate(model, keep_alive=0)
            until(
                lambda: _phases(shown.text())[3:] == ["Draining", "Idle"],
                60,
                what="phases Draining and Idle",
                interval=POLL,
            )
            assert client.ps().models == []
    finally:
        shown.stop()
    assert len(parts) > 3, "the response was streamed"
    assert "".join(part.message.content or "" for part in parts).strip()
    assert parts[-1].done_reason in ("stop", "length")
    assert [loaded.model for loaded in running] == [f"{model}:latest"]
    assert _phases(shown.text()) == ["Idle", "Loading", "Ready", "Draining", "Idle"]
    reasons = {
        "Pending": "header of the weights",
        "PlacementChosen": "a runner gets the CPU",
        "Idle": "the next request loads the model",
        "Loading": "requests are pending",
        "Ready": "1 of 1",
        "Draining": "keep_alive",
    }
    events = until(lambda: _all_events(_events(release, model), reasons), 10, what="the Events", interval=POLL)
    for reason, why in reasons.items():
        assert any(found == reason and why in message for found, message in events), f"{reason}: {events}"
    release.wait_gone(model, 30)


def test_openais_client_works_through_the_service(release: Release, model: str) -> None:
    release.add(model)
    messages = [ChatCompletionUserMessageParam(role="user", content=QUESTION)]
    with release.openai() as client:
        plain = client.chat.completions.create(model=model, messages=messages, max_tokens=16)
        stream = client.chat.completions.create(model=model, messages=messages, max_tokens=16, stream=True)
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert (plain.choices[0].message.content or "").strip()
    assert "".join(pieces).strip()


def test_keep_alive_of_a_request_scales_to_zero(release: Release, model: str) -> None:
    release.add(model)
    with release.ollama() as client:
        client.generate(model, QUESTION, keep_alive=3, options=ollama.Options(num_predict=4))
        answered = time.monotonic()
        release.wait_replicas(model, 0, 30)
        scaled = time.monotonic() - answered
        release.wait_gone(model)
        gone = time.monotonic() - answered
    print(f"after the answer: scaled to 0 in {scaled:.2f} s, no pod in {gone:.2f} s")
    assert 2.5 < scaled < 5
    release.wait_phase(model, "Idle")


def test_keep_alive_minus_one_stays_loaded_and_zero_unloads_at_once(release: Release, model: str) -> None:
    release.add(model, keepAlive="1s")
    with release.ollama() as client:
        client.generate(model, QUESTION, keep_alive=-1, options=ollama.Options(num_predict=4))
        (loaded,) = client.ps().models
        assert loaded.expires_at is not None
        assert loaded.expires_at.year > 2200, "expires_at is far in the future"
        pods = {at(pod, "metadata", "uid") for pod in release.pods(model)}
        time_before = time.monotonic()
        until(lambda: time.monotonic() > time_before + 4, 10, what="four times the Model's own keepAlive")
        assert {at(pod, "metadata", "uid") for pod in release.pods(model)} == pods
        assert release.replicas(model) == 1

        assert client.generate(model, keep_alive=0).done_reason == "unload"
        release.wait_replicas(model, 0, 5)
        release.wait_gone(model)


def test_two_hundred_requests_to_a_cold_model_are_each_answered_once(release: Release, model: str) -> None:
    release.add(model, parallel=4)
    release.wait_phase(model, "Idle")
    answers = [release.ask(model, prompt=f"Say the number {number}.", tokens=2) for number in range(200)]
    done = [answer.result(COLD_START * 2) for answer in answers]
    assert [(answer.ends, answer.tokens) for answer in done] == [(1, 2)] * 200
    assert len(release.pods(model)) == 1


def test_each_gateways_requests_are_served_in_order(release: Release, model: str) -> None:
    """200 requests through two gateways to a cold model with one slot: FIFO per gateway."""
    release.add(model, parallel=1)
    release.wait_phase(model, "Idle")
    gateways = release.gateways()
    arrived, served = asyncio.run(ask_in_order(gateways, model, count=200, timeout=COLD_START * 2))
    assert [(answer.status, answer.ends, answer.tokens) for answer in served] == [(200, 1, 2)] * 200
    assert min(answer.at for answer in served) > arrived, "all requests were pending at the cold model"
    for gateway in gateways:
        began = [answer.began for answer in served if answer.gateway == gateway]
        assert len(began) == 100
        assert began == sorted(began), f"the order at {gateway}"
    assert len(release.pods(model)) == 1


def _phases(shown: str) -> list[str]:
    """Return the phases in the output of ``kubectl get --watch`` without repeats."""
    phases = [line.split()[2] for line in shown.splitlines() if len(line.split()) > 2]
    return [phase for index, phase in enumerate(phases) if index == 0 or phases[index - 1] != phase]


def _events(release: Release, model: str) -> list[tuple[str, str]]:
    """Return the Model's Events, as reason and message."""
    found = release.cluster.api.items(f"/api/v1/namespaces/{MODELS_NAMESPACE}/events")
    ours = [event for event in found if at(event, "involvedObject", "name") == model]
    return [(str(event["reason"]), str(event["message"])) for event in ours]


def _all_events(events: list[tuple[str, str]], reasons: Collection[str]) -> list[tuple[str, str]] | None:
    return events if {reason for reason, _ in events} >= set(reasons) else None
