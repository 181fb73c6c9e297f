"""What the cluster sees: activity and its stream, probes, info; and paths that do not exist."""

from __future__ import annotations

import functools
import json
import threading

import pytest

from corral_core.activity import Activity
from corral_core.facts import ModelFacts
from corral_server.runner import state as state_module
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import FACTS, runner_state, served, serving
from tests.support.waiting import until

HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


def test_activity_of_a_loaded_runner() -> None:
    with serving(FakeEngine()) as runner:
        activity = Activity.from_json(runner.http.get("/activity").json())
    assert (activity.loaded, activity.draining, activity.busy) == (True, False, False)
    assert (activity.slots, activity.size_bytes, activity.vram_bytes, activity.context_length) == (2, 1000, 400, 4096)
    assert activity.expires_at is not None


def test_activity_while_loading() -> None:
    with served(runner_state()) as runner:
        activity = Activity.from_json(runner.http.get("/activity").json())
    assert (activity.loaded, activity.slots, activity.expires_at, activity.progress) == (False, 0, None, 0.0)


def test_watching_tells_how_far_the_loading_is() -> None:
    state = runner_state()

    def half() -> None:
        state.progress = 0.5
        state.notify()

    with served(state) as runner, runner.http.stream("GET", "/activity?watch=true") as watch:
        lines = (Activity.from_json(json.loads(line)) for line in watch.iter_lines())
        assert next(lines).progress == 0
        runner.call(half)
        assert next(line.progress for line in lines if line.progress) == 0.5


def test_watching_tells_of_every_change_of_a_request() -> None:
    gate = threading.Event()
    with serving(FakeEngine(script=(gate,))) as runner, runner.http.stream("GET", "/activity?watch=true") as watch:
        assert watch.headers["content-type"].startswith("application/x-ndjson")
        lines = (Activity.from_json(json.loads(line)) for line in watch.iter_lines())
        assert not next(lines).busy
        request = threading.Thread(target=runner.http.post, args=("/api/chat",), kwargs={"json": HELLO})
        request.start()
        assert next(line for line in lines if line.busy).in_flight == 1
        gate.set()
        assert next(line for line in lines if not line.busy).last_end is not None
        request.join(10)


def test_an_unchanged_activity_is_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "HEARTBEAT", 0.05)
    with serving(FakeEngine()) as runner, runner.http.stream("GET", "/activity?watch=true") as watch:
        lines = watch.iter_lines()
        assert json.loads(next(lines)) == json.loads(next(lines)) == json.loads(next(lines))


def test_watching_tells_of_the_drain_and_ends_with_the_runner() -> None:
    with serving(FakeEngine()) as runner, runner.http.stream("GET", "/activity?watch=true") as watch:
        lines = watch.iter_lines()
        next(lines)
        runner.call(runner.state.drain)
        assert json.loads(next(lines))["draining"] is True
        runner.call(runner.state.close)
        assert all(json.loads(line)["draining"] for line in lines)


def test_a_question_that_waits_is_answered_as_soon_as_the_model_is_loaded() -> None:
    with serving(FakeEngine()) as runner:
        loaded = runner.state.loaded
        runner.state.loaded = None
        answers: list[int] = []
        asking = threading.Thread(
            target=lambda: answers.append(runner.http.get("/readyz?wait=30", timeout=30).status_code)
        )
        asking.start()
        assert runner.http.get("/readyz?wait=0").status_code == 503
        assert asking.is_alive()
        assert loaded is not None
        runner.call(functools.partial(runner.state.now_loaded, loaded))
        asking.join(10)
        assert answers == [200]


def test_a_question_that_waits_is_answered_when_the_runner_is_to_end() -> None:
    with served(runner_state()) as runner:
        asking = threading.Thread(target=runner.http.get, args=("/readyz?wait=30",), kwargs={"timeout": 30})
        asking.start()
        runner.call(runner.state.drain)
        asking.join(10)
        assert not asking.is_alive()


def test_readiness_follows_loading_and_draining() -> None:
    with served(runner_state()) as runner:
        assert runner.http.get("/readyz").status_code == 503
        assert runner.http.get("/healthz").status_code == 200
    with serving(FakeEngine()) as runner:
        assert runner.http.get("/readyz").status_code == 200
        runner.call(runner.state.drain)
        assert runner.http.get("/readyz").status_code == 503
        assert runner.http.get("/healthz").status_code == 200


@pytest.mark.parametrize("seconds", [1000.0, float("inf")])
def test_a_runner_whose_engine_stands_still_is_not_alive(seconds: float) -> None:
    with serving(FakeEngine(stalled_for=seconds)) as runner:
        assert runner.http.get("/healthz").status_code == 503


def test_info_has_the_facts_of_the_loaded_model() -> None:
    with serving(FakeEngine()) as runner:
        body = runner.http.get("/info").json()
    assert ModelFacts.from_json(body["facts"]) == FACTS
    assert (body["parallel"], body["contextLength"]) == (2, 4096)


def test_info_has_nothing_while_loading() -> None:
    with served(runner_state()) as runner:
        assert runner.http.get("/info").status_code == 503


def test_an_unknown_path_and_a_wrong_method_are_answered_as_ollama_does() -> None:
    with serving(FakeEngine()) as runner:
        unknown, wrong = runner.http.get("/api/nothing"), runner.http.get("/api/chat")
    assert (unknown.status_code, unknown.text) == (404, "404 page not found")
    assert (wrong.status_code, wrong.text) == (405, "405 method not allowed")
    assert unknown.headers["content-type"].startswith("text/plain")


def test_a_body_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corral_server.runner.requests.MAX_BODY", 1000)
    with serving(FakeEngine()) as runner:
        response = runner.post("/api/chat", {"model": "x" * 2000})
        assert response.status_code == 413
        assert "request body too large" in response.json()["error"]
        assert runner.post("/api/chat", HELLO).status_code == 200


def test_activity_tells_how_many_requests_each_gateway_sent() -> None:
    gate = threading.Event()
    with serving(FakeEngine(script=(gate,))) as runner:
        senders = ("one", "two", "two", "")
        requests = [
            threading.Thread(
                target=runner.http.post,
                args=("/api/chat",),
                kwargs={"json": HELLO, "headers": {"corral-gateway": name}},
            )
            for name in senders
        ]
        for request in requests:
            request.start()

        def said() -> Activity:
            return Activity.from_json(runner.http.get("/activity").json())

        def four_active() -> Activity | None:
            found = said()
            return found if found.in_flight + found.waiting == 4 else None

        activity = until(four_active)
        gate.set()
        for request in requests:
            request.join(10)
        until(lambda: not said().busy)
        assert (activity.by_gateway, activity.in_flight, activity.waiting) == ({"one": 1, "two": 2}, 2, 2)
        assert said().by_gateway == {}
