"""Status endpoints: runner status and its stream, probes, info; unknown paths."""

from __future__ import annotations

import functools
import json
import threading
import time

import pytest

from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.contracts.packed_defaults import source_defaults
from corral_core.contracts.runner_status import RunnerStatus
from corral_server.runner.lifecycle import state as state_module
from tests.core.contracts.test_packed_defaults import BROUGHT
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import METADATA, runner_state, serving, serving_state
from tests.support.waiting import until

NOW = 1_000_000.0
HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


def test_status_of_a_loaded_runner() -> None:
    with serving(FakeEngine()) as runner:
        activity = RunnerStatus.from_json(runner.http.get("/activity").json(), NOW)
    assert (activity.loaded, activity.draining, activity.busy) == (True, False, False)
    assert (activity.slots, activity.size_bytes, activity.vram_bytes, activity.context_length) == (2, 1000, 400, 4096)
    assert activity.expires_at is not None


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_setting_the_clock_does_not_move_the_expiry(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    real = time.time
    with serving(FakeEngine()) as runner:
        runner.post("/api/chat", HELLO)
        monkeypatch.setattr(time, "time", lambda: real() + step)
        activity = runner.http.get("/activity").json()
    assert 240 < activity["expires_in_s"] <= 300
    assert 0 <= activity["idle_s"] < 60


def test_status_while_loading() -> None:
    with serving_state(runner_state()) as runner:
        activity = RunnerStatus.from_json(runner.http.get("/activity").json(), NOW)
    assert (activity.loaded, activity.slots, activity.expires_at, activity.load_progress) == (False, 0, None, 0.0)


def test_the_status_stream_has_the_load_progress() -> None:
    state = runner_state()

    def half() -> None:
        state.progress = 0.5
        state.notify_watchers()

    with serving_state(state) as runner, runner.http.stream("GET", "/activity?watch=true") as watch:
        lines = (RunnerStatus.from_json(json.loads(line), NOW) for line in watch.iter_lines())
        assert next(lines).load_progress == 0
        runner.call(half)
        assert next(line.load_progress for line in lines if line.load_progress) == 0.5


def test_the_status_stream_has_a_line_for_the_start_and_end_of_a_request() -> None:
    gate = threading.Event()
    with serving(FakeEngine(script=(gate,))) as runner, runner.http.stream("GET", "/activity?watch=true") as watch:
        assert watch.headers["content-type"].startswith("application/x-ndjson")
        lines = (RunnerStatus.from_json(json.loads(line), NOW) for line in watch.iter_lines())
        assert not next(lines).busy
        request = threading.Thread(target=runner.http.post, args=("/api/chat",), kwargs={"json": HELLO})
        request.start()
        assert next(line for line in lines if line.busy).in_flight == 1
        gate.set()
        assert next(line for line in lines if not line.busy).last_end is not None
        request.join(10)


def test_a_reader_gets_the_generated_tokens_at_its_interval_while_requests_are_active(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state_module, "HEARTBEAT_INTERVAL", 3600.0)
    gate, path = threading.Event(), "/activity?watch=true&interval=0.1"
    with serving(FakeEngine(script=(gate,))) as runner, runner.http.stream("GET", path) as watch:
        lines = (RunnerStatus.from_json(json.loads(line), NOW) for line in watch.iter_lines())
        next(lines)
        request = threading.Thread(target=runner.http.post, args=("/api/chat",), kwargs={"json": HELLO})
        request.start()
        busy = [line for line, _ in zip((line for line in lines if line.busy), range(3), strict=False)]
        assert [line.generated_tokens for line in busy] == [0, 0, 0]
        gate.set()
        assert not next(line for line in lines if not line.busy).busy
        request.join(10)


def test_the_status_stream_repeats_an_unchanged_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "HEARTBEAT_INTERVAL", 0.05)
    with serving(FakeEngine()) as runner, runner.http.stream("GET", "/activity?watch=true") as watch:
        first, *others = [json.loads(line) for _, line in zip(range(3), watch.iter_lines(), strict=False)]
    for other in others:
        assert other.pop("expires_in_s") < first["expires_in_s"], "only the time until the expiry differs"
        assert other == {name: value for name, value in first.items() if name != "expires_in_s"}


def test_the_status_stream_reports_the_drain_and_ends_with_the_runner() -> None:
    with serving(FakeEngine()) as runner, runner.http.stream("GET", "/activity?watch=true") as watch:
        lines = watch.iter_lines()
        next(lines)
        runner.call(runner.state.start_draining)
        assert json.loads(next(lines))["draining"] is True
        runner.call(runner.state.close)
        assert all(json.loads(line)["draining"] for line in lines)


def test_a_waiting_readiness_request_is_answered_when_the_model_is_loaded() -> None:
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
        runner.call(functools.partial(runner.state.set_loaded, loaded))
        asking.join(10)
        assert answers == [200]


def test_a_waiting_readiness_request_is_answered_when_draining_starts() -> None:
    with serving_state(runner_state()) as runner:
        asking = threading.Thread(target=runner.http.get, args=("/readyz?wait=30",), kwargs={"timeout": 30})
        asking.start()
        runner.call(runner.state.start_draining)
        asking.join(10)
        assert not asking.is_alive()


def test_readiness_follows_loading_and_draining() -> None:
    with serving_state(runner_state()) as runner:
        assert runner.http.get("/readyz").status_code == 503
        assert runner.http.get("/healthz").status_code == 200
    with serving(FakeEngine()) as runner:
        assert runner.http.get("/readyz").status_code == 200
        runner.call(runner.state.start_draining)
        assert runner.http.get("/readyz").status_code == 503
        assert runner.http.get("/healthz").status_code == 200


@pytest.mark.parametrize("seconds", [1000.0, float("inf")])
def test_liveness_fails_when_the_engine_stalls(seconds: float) -> None:
    with serving(FakeEngine(stalled_for=seconds)) as runner:
        assert runner.http.get("/healthz").status_code == 503


def test_info_has_the_metadata_of_the_loaded_model() -> None:
    with serving(FakeEngine()) as runner:
        body = runner.http.get("/info").json()
    assert ModelMetadata.from_json(body["metadata"]) == METADATA
    assert (body["parallel"], body["contextLength"]) == (2, 4096)


def test_info_has_what_the_source_brings() -> None:
    with serving(FakeEngine(), defaults=BROUGHT) as runner:
        body = runner.http.get("/info").json()
    assert source_defaults(ModelMetadata.from_json(body["metadata"])) == BROUGHT


def test_info_is_a_503_while_loading() -> None:
    with serving_state(runner_state()) as runner:
        assert runner.http.get("/info").status_code == 503


def test_unknown_path_and_wrong_method() -> None:
    with serving(FakeEngine()) as runner:
        unknown, wrong = runner.http.get("/api/nothing"), runner.http.get("/api/chat")
    assert (unknown.status_code, unknown.text) == (404, "404 page not found")
    assert (wrong.status_code, wrong.text) == (405, "405 method not allowed")
    assert unknown.headers["content-type"].startswith("text/plain")


def test_a_body_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corral_server.runner.api.request_body.MAX_BODY_BYTES", 1000)
    with serving(FakeEngine()) as runner:
        response = runner.post("/api/chat", {"model": "x" * 2000})
        assert response.status_code == 413
        assert "request body too large" in response.json()["error"]
        assert runner.post("/api/chat", HELLO).status_code == 200


def test_status_has_the_active_requests_per_gateway() -> None:
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

        def said() -> RunnerStatus:
            return RunnerStatus.from_json(runner.http.get("/activity").json(), NOW)

        def four_active() -> RunnerStatus | None:
            found = said()
            return found if found.in_flight + found.waiting == 4 else None

        activity = until(four_active)
        gate.set()
        for request in requests:
            request.join(10)
        until(lambda: not said().busy)
        assert (activity.by_gateway, activity.in_flight, activity.waiting) == ({"one": 1, "two": 2}, 2, 2)
        assert said().by_gateway == {}
