"""Generation responses: client disconnects, draining, concurrency, and which requests count as active."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from corral_server.runner.templates.templates import ChatTemplate
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import ServedRunner, runner_state, serving, serving_state
from tests.support.waiting import until

CHAT = "/api/chat"
HELLO: dict[str, object] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


def connect(runner: ServedRunner, body: dict[str, object], path: str = CHAT) -> socket.socket:
    """Send a request over a plain socket, which the test can close."""
    data = json.dumps(body).encode()
    client = socket.create_connection(("127.0.0.1", runner.port), timeout=10)
    client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    return client


def test_a_chunk_is_sent_as_soon_as_it_is_generated(gate: threading.Event) -> None:
    with serving(FakeEngine(script=("Hello", gate, "world"))) as runner, connect(runner, HELLO) as client:
        received = b""
        while b"Hello" not in received:
            received += client.recv(4096)
        assert b"world" not in received
        gate.set()


@pytest.mark.parametrize("stream", [True, False])
def test_a_disconnected_client_frees_its_slot(gate: threading.Event, stream: bool) -> None:
    engine = FakeEngine(script=("Hello", gate))
    with serving(engine) as runner:
        with connect(runner, HELLO | {"stream": stream}):
            until(lambda: engine.running == 1)
            assert runner.active() == 1
        until(lambda: engine.running == 0, what="the end of the generation")
        until(lambda: runner.active() == 0)
        assert runner.http.get("/activity").json()["expires_in_s"] is not None


def test_a_client_that_disconnects_before_the_first_chunk_frees_its_slot(gate: threading.Event) -> None:
    engine = FakeEngine(script=(gate,))
    with serving(engine) as runner:
        with connect(runner, HELLO):
            until(lambda: engine.running == 1)
        until(lambda: engine.running == 0, what="the end of the generation")


def test_requests_beyond_the_slots_are_queued(gate: threading.Event) -> None:
    with serving(FakeEngine(script=(gate,), slots=2)) as runner, ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(runner.post, CHAT, HELLO) for _ in range(3)]
        until(lambda: runner.active() == 3)
        activity = runner.http.get("/activity").json()
        assert (activity["in_flight"], activity["waiting"], activity["slots"]) == (2, 1, 2)
        assert activity["expires_in_s"] is None
        gate.set()
        assert [answer.result(10).status_code for answer in answers] == [200, 200, 200]


def test_a_failed_request_counts_as_ended() -> None:
    with serving(FakeEngine(), template="{% if %}") as runner:
        assert runner.post(CHAT, HELLO).status_code == 500
        assert runner.active() == 0
        assert runner.http.get("/activity").json()["idle_s"] is not None


def test_a_refused_request_does_not_count_as_a_use() -> None:
    with serving(FakeEngine()) as runner:
        runner.post(CHAT, HELLO | {"options": {"top_k": "x"}, "keep_alive": 1})
        activity = runner.http.get("/activity").json()
    assert (activity["idle_s"], activity["keep_alive_s"]) == (None, 300)


@pytest.mark.parametrize("path", [CHAT, "/api/generate"])
def test_a_request_while_loading_is_not_started(path: str) -> None:
    with serving_state(runner_state()) as runner:
        response = runner.post(path, HELLO | {"prompt": "hi"})
    assert (response.status_code, response.headers["corral-retry"]) == (503, "loading")
    assert response.json() == {"error": "the model is loading, please try again"}


def test_draining_finishes_running_requests_and_starts_no_new_ones(gate: threading.Event) -> None:
    with serving(FakeEngine(script=("Hello", gate, " you"))) as runner, ThreadPoolExecutor(1) as pool:
        running = pool.submit(runner.post, CHAT, HELLO | {"stream": False})
        until(lambda: runner.active() == 1)
        runner.call(runner.state.start_draining)
        response = runner.post(CHAT, HELLO)
        assert (response.status_code, response.headers["corral-retry"]) == (503, "draining")
        gate.set()
        assert running.result(10).json()["message"]["content"] == "Hello you"


def test_draining_between_arrival_and_start_of_a_request(gate: threading.Event) -> None:
    """The prompt is rendered outside the event loop; the drain waits for requests that are counted."""
    with serving(FakeEngine(script=(gate,))) as runner, connect(runner, HELLO):
        until(lambda: runner.active() == 1)
        runner.call(runner.state.start_draining)
        assert runner.active() == 1


def test_a_slow_template_does_not_block_other_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, leave = threading.Event(), threading.Event()
    plain = ChatTemplate.render

    def slow(self: ChatTemplate, *args: object, **kwargs: object) -> str:
        entered.set()
        assert leave.wait(10)
        return plain(self, *args, **kwargs)  # type: ignore[arg-type]  # passed on unchanged

    monkeypatch.setattr(ChatTemplate, "render", slow)
    with serving(FakeEngine()) as runner, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(runner.post, CHAT, HELLO)
        assert entered.wait(10)
        assert runner.http.get("/healthz").status_code == 200
        leave.set()
        assert answer.result(10).status_code == 200


def test_eight_concurrent_streams_are_complete() -> None:
    script = [f"{index} " for index in range(200)]
    with serving(FakeEngine(script=script, slots=8)) as runner, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(runner.post, CHAT, HELLO).result for _ in range(8)]
        for answer in answers:
            lines = [json.loads(line) for line in answer(20).text.splitlines()]
            assert "".join(line["message"]["content"] for line in lines) == "".join(script)
