"""How a runner process starts and ends: its log, signals, its parent, and weights that cannot be loaded."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
from pathlib import Path

import httpx
import pytest

from tests.runner.engines import weights
from tests.support.runner_process import START_TIMEOUT, environment, running
from tests.support.waiting import until

pytestmark = pytest.mark.process

LONG = {
    "model": "smollm2",
    "prompt": "1, 2, 3, 4, 5, 6,",
    "raw": True,
    "options": {"num_predict": 100, "temperature": 0},
}
SMALL = {"contextLength": 512, "parallel": 1}


def test_sigterm_lets_running_requests_end_and_begins_no_new_one() -> None:
    weights()
    with running(environment(spec=SMALL)) as runner, runner.wait_ready().client() as http:
        with http.stream("POST", "/api/generate", json=LONG) as response:
            lines = response.iter_lines()
            next(lines)
            runner.process.send_signal(signal.SIGTERM)
            until(lambda: runner.event("drain"), what="the drain")
            with runner.client() as other:
                refused = other.post("/api/generate", json=LONG)
                assert (refused.status_code, refused.headers["corral-retry"]) == (503, "draining")
                assert other.get("/readyz").status_code == 503
                assert other.get("/activity").json()["draining"] is True
            assert '"done":true' in list(lines)[-1]
        assert runner.ended() == 0
    events = [line["event"] for line in runner.lines if line["event"] != "log"]
    assert events == ["listening", "loading", "loaded", "drain", "exit"]


def test_the_drain_ends_after_its_timeout() -> None:
    weights()
    env = environment(spec=SMALL, CORRAL_DRAIN_TIMEOUT="200ms")
    endless = LONG | {"options": {"num_predict": 5000, "temperature": 0}}
    with running(env) as runner, runner.wait_ready().client() as http:
        with http.stream("POST", "/api/generate", json=endless) as response:
            lines = response.iter_lines()
            next(lines)
            runner.process.send_signal(signal.SIGTERM)
            assert runner.ended() == 0
            with pytest.raises(httpx.RemoteProtocolError):
                list(lines)
        assert runner.event("drain-timeout") is not None


def test_sigterm_ends_an_activity_stream() -> None:
    weights()
    with running(environment(spec=SMALL)) as runner, runner.wait_ready().client() as http:
        with http.stream("GET", "/activity?watch=true") as response:
            lines = response.iter_lines()
            next(lines)
            runner.process.send_signal(signal.SIGTERM)
            assert '"draining":true' in list(lines)[-1]
        assert runner.ended() == 0


def test_sigterm_while_loading_ends_it_at_once() -> None:
    weights()
    with running(environment()) as runner:
        until(lambda: runner.event("loading"), START_TIMEOUT, what="loading")
        runner.process.send_signal(signal.SIGTERM)
        assert runner.ended() == 0


def test_a_runner_whose_parent_dies_ends_at_once() -> None:
    reader, writer = os.pipe()
    try:
        with running(environment(CORRAL_PARENT_FD=str(reader)), pass_fds=[reader]) as runner:
            assert runner.port
            os.close(writer)
            assert runner.ended() == 1
    finally:
        os.close(reader)


def test_a_runner_serves_an_inherited_socket() -> None:
    weights()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        number = sock.fileno()
        with running(environment(spec=SMALL, CORRAL_LISTEN_FD=str(number)), pass_fds=[number]) as runner:
            assert httpx.get(f"http://127.0.0.1:{sock.getsockname()[1]}/healthz", timeout=60).status_code == 200
            assert runner.port == sock.getsockname()[1]


def test_http_is_up_before_the_model_is_loaded() -> None:
    weights()
    with running(environment(spec=SMALL)) as runner, runner.client() as http:
        assert http.get("/activity").json()["loaded"] in (False, True)
        runner.wait_ready()
        assert http.get("/readyz").status_code == 200
        assert http.get("/info").json()["contextLength"] == 512


def failed_start(source: str, tmp_path: Path, **spec: object) -> str:
    """The termination message of a runner that cannot start; stderr says the same."""
    said = tmp_path / "termination"
    with running(environment(source, spec=spec, CORRAL_TERMINATION_LOG=str(said))) as runner:
        assert runner.ended() == 1
    message = said.read_text()
    assert message.count("\n") == 1
    assert message in "".join(runner.errors)
    return message


def test_weights_that_are_missing(tmp_path: Path) -> None:
    assert "nothing.gguf" in failed_start(f"file://{tmp_path}/nothing.gguf", tmp_path)


def test_weights_that_are_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"<html>not found</html>" * 100)
    message = failed_start(f"file://{tmp_path}/model.gguf", tmp_path)
    assert "model.gguf" in message
    assert "GGUF" in message


def test_weights_that_are_truncated(tmp_path: Path) -> None:
    whole = weights()
    with whole.open("rb") as file:
        (tmp_path / "model.gguf").write_bytes(file.read(20_000_000))
    assert "model.gguf" in failed_start(f"file://{tmp_path}/model.gguf", tmp_path)


def test_weights_with_another_digest(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"something else").hexdigest()
    assert digest in failed_start(f"file://{weights()}", tmp_path, sha256=digest)


def test_an_environment_without_a_model(tmp_path: Path) -> None:
    said = tmp_path / "termination"
    env = environment() | {"CORRAL_MODEL": "{", "CORRAL_TERMINATION_LOG": str(said)}
    with running(env) as runner:
        assert runner.ended() == 1
    assert "CORRAL_MODEL" in said.read_text()


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    said = tmp_path / "termination"
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = str(sock.getsockname()[1])
        with running(environment() | {"CORRAL_PORT": port, "CORRAL_TERMINATION_LOG": str(said)}) as runner:
            assert runner.ended() == 1
    assert f"cannot listen on 127.0.0.1:{port}" in said.read_text()
