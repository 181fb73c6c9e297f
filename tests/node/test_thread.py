"""The thread through every part on a real node: Helm, images, kubelet, a volume, and the clients that people use."""

from __future__ import annotations

import asyncio
import time

import ollama
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from tests.cluster.api import at
from tests.node.held import ask_in_order
from tests.node.release import LOOK, MODELS_IN, WAKE, Release
from tests.support.waiting import until

pytestmark = [pytest.mark.node, pytest.mark.timeout(600)]

QUESTION = "Name three colours."


def test_a_model_at_zero_answers_a_streamed_chat_through_the_service(release: Release, model: str) -> None:
    release.add(model)
    release.wait_phase(model, "Idle")
    assert release.pods(model) == []
    shown = release.site.follow(f"phases-{model}", "-n", MODELS_IN, "get", "models", model, "--watch", "--no-headers")
    try:
        until(lambda: _phases(shown.text()) == ["Idle"], 30, what="kubectl's Idle", interval=LOOK)
        with release.ollama() as client:
            parts = list(client.chat(model, [ollama.Message(role="user", content=QUESTION)], stream=True))
            until(lambda: "Ready" in _phases(shown.text()), 30, what="kubectl's Ready", interval=LOOK)
            running = client.ps().models
            client.generate(model, keep_alive=0)
            until(lambda: _phases(shown.text())[3:] == ["Draining", "Idle"], 60, what="the way back", interval=LOOK)
            assert client.ps().models == []
    finally:
        shown.stop()
    assert len(parts) > 3, "the answer came in pieces"
    assert "".join(part.message.content or "" for part in parts).strip()
    assert parts[-1].done_reason in ("stop", "length")
    assert [loaded.model for loaded in running] == [f"{model}:latest"]
    assert _phases(shown.text()) == ["Idle", "Loading", "Ready", "Draining", "Idle"]
    told = until(lambda: _whole(_told(release, model)), 10, what="an Event for each phase", interval=LOOK)
    assert [phase for phase, _ in told] == ["Pending", "Idle", "Loading", "Ready", "Draining", "Idle"]
    reasons = ("header of its weights", "nobody asks", "requests wait", "1 of 1", "keep_alive", "")
    for (phase, message), why in zip(told, reasons, strict=True):
        assert why in message, f"{phase}: {message}"
    release.wait_gone(model, 30)


def test_openais_client_gets_the_same_through_the_service(release: Release, model: str) -> None:
    release.add(model)
    messages = [ChatCompletionUserMessageParam(role="user", content=QUESTION)]
    with release.openai() as client:
        plain = client.chat.completions.create(model=model, messages=messages, max_tokens=16)
        stream = client.chat.completions.create(model=model, messages=messages, max_tokens=16, stream=True)
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert (plain.choices[0].message.content or "").strip()
    assert "".join(pieces).strip()


def test_keep_alive_of_the_request_sends_it_to_zero_pods(release: Release, model: str) -> None:
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


def test_stop_unloads_at_once_and_keep_alive_minus_one_stays(release: Release, model: str) -> None:
    release.add(model, keepAlive="1s")
    with release.ollama() as client:
        client.generate(model, QUESTION, keep_alive=-1, options=ollama.Options(num_predict=4))
        (loaded,) = client.ps().models
        assert loaded.expires_at is not None
        assert loaded.expires_at.year > 2200, "it says that it stays for ever"
        pods = {at(pod, "metadata", "uid") for pod in release.pods(model)}
        time_before = time.monotonic()
        until(lambda: time.monotonic() > time_before + 4, 10, what="four times the Model's own keepAlive")
        assert {at(pod, "metadata", "uid") for pod in release.pods(model)} == pods
        assert release.replicas(model) == 1

        assert client.generate(model, keep_alive=0).done_reason == "unload"
        release.wait_replicas(model, 0, 5)
        release.wait_gone(model)


def test_two_hundred_requests_at_a_cold_model_are_all_answered_and_none_twice(release: Release, model: str) -> None:
    release.add(model, parallel=4)
    release.wait_phase(model, "Idle")
    answers = [release.ask(model, prompt=f"Say the number {number}.", tokens=2) for number in range(200)]
    done = [answer.result(WAKE * 2) for answer in answers]
    assert [(answer.ends, answer.tokens) for answer in done] == [(1, 2)] * 200
    assert len(release.pods(model)) == 1


def test_requests_are_served_in_the_order_in_which_their_gateway_got_them(release: Release, model: str) -> None:
    """200 from two sides at a cold model with one slot: each gateway's own are served first come, first served."""
    release.add(model, parallel=1)
    release.wait_phase(model, "Idle")
    gateways = release.gateways()
    arrived, served = asyncio.run(ask_in_order(gateways, model, count=200, timeout=WAKE * 2))
    assert [(answer.status, answer.ends, answer.tokens) for answer in served] == [(200, 1, 2)] * 200
    assert min(answer.at for answer in served) > arrived, "all of them waited at the cold model"
    for gateway in gateways:
        began = [answer.began for answer in served if answer.gateway == gateway]
        assert len(began) == 100
        assert began == sorted(began), f"the order at {gateway}"
    assert len(release.pods(model)) == 1


def _phases(shown: str) -> list[str]:
    """The phases that ``kubectl get --watch`` showed, each once."""
    phases = [line.split()[1] for line in shown.splitlines() if len(line.split()) > 2]
    return [phase for index, phase in enumerate(phases) if index == 0 or phases[index - 1] != phase]


def _told(release: Release, model: str) -> list[tuple[str, str]]:
    """The Model's Events, phase and message, as they came."""
    events = release.site.api.items(f"/api/v1/namespaces/{MODELS_IN}/events")
    ours = [event for event in events if at(event, "involvedObject", "name") == model]
    ours.sort(key=lambda event: int(str(at(event, "metadata", "resourceVersion"))))
    return [(str(event["reason"]), str(event["message"])) for event in ours]


def _whole(told: list[tuple[str, str]]) -> list[tuple[str, str]] | None:
    return told if len(told) >= 6 else None
