"""Requests for another Model at the address of a runner."""

from __future__ import annotations

import json
import socket

import pytest

from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import runner_state, serving, serving_state

HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "a secret"}]}
OTHERS = ["team/tiny", "default/other", "default/tiny another-uid", "", "x"]
PATHS = ["/api/chat", "/api/generate", "/api/show", "/api/embed", "/v1/chat/completions", "/v1/messages", "/nothing"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("other", OTHERS)
def test_a_request_for_another_model_is_refused_in_the_format_of_its_api(path: str, other: str) -> None:
    engine = FakeEngine()
    state = runner_state(engine)
    state.uid = "own-uid"
    with serving_state(state) as runner:
        response = runner.http.post(path, json=HELLO, headers={"corral-model-identity": other})
        assert runner.active() == 0
    assert response.status_code == 421
    assert "serves another model" in response.text
    assert ("error" in response.json()) is True
    assert engine.tasks == []


@pytest.mark.parametrize("path", ["/activity", "/activity?watch=true", "/info", "/metrics"])
def test_a_request_for_the_status_of_another_model_is_refused(path: str) -> None:
    with serving(FakeEngine()) as runner:
        response = runner.http.get(path, headers={"corral-model-identity": "team/tiny"})
    assert response.status_code == 421
    assert "size_bytes" not in response.text


def test_an_unload_request_for_another_model_does_not_unload() -> None:
    with serving(FakeEngine()) as runner:
        unload = {"model": "tiny", "keep_alive": 0}
        response = runner.http.post("/api/generate", json=unload, headers={"corral-model-identity": "team/tiny"})
        assert response.status_code == 421
        assert runner.http.get("/activity").json()["keep_alive_s"] == 300


@pytest.mark.parametrize("own", [None, "default/tiny", "default/tiny own-uid"])
def test_its_own_requests_and_those_without_a_model_are_served(own: str | None) -> None:
    state = runner_state(FakeEngine())
    state.uid = "own-uid"
    headers = {} if own is None else {"corral-model-identity": own}
    with serving_state(state) as runner:
        assert runner.http.post("/api/chat", json=HELLO, headers=headers).status_code == 200
        for path in ("/activity", "/healthz", "/readyz", "/info", "/metrics"):
            assert runner.http.get(path, headers=headers).status_code == 200


def test_two_headers_must_both_be_for_the_model() -> None:
    with serving(FakeEngine()) as runner:
        headers = [("corral-model-identity", "default/tiny"), ("corral-model-identity", "team/tiny")]
        assert runner.http.post("/api/chat", json=HELLO, headers=headers).status_code == 421


def test_the_refusal_does_not_wait_for_the_body() -> None:
    head = b"POST /api/chat HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\ncorral-model-identity: team/tiny\r\n\r\n"
    with serving(FakeEngine()) as runner, socket.create_connection(("127.0.0.1", runner.port), 10) as client:
        client.sendall(head)
        client.settimeout(10)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 421")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
