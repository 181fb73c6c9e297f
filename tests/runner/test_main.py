"""Start and exit of a runner process: log events, signals, parent death, weights that cannot be loaded."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
from pathlib import Path

import httpx
import pytest

from tests.runner.engines import weights
from tests.support.runner_process import START_TIMEOUT, runner_environment, runner_process
from tests.support.waiting import until

pytestmark = pytest.mark.process

LONG = {
    "model": "smollm2",
    "prompt": "1, 2, 3, 4, 5, 6,",
    "raw": True,
    "options": {"num_predict": 100, "temperature": 0},
}
SMALL = {"contextLength": 512, "parallel": 1}


def test_sigterm_finishes_running_requests_and_starts_no_new_ones() -> None:
    weights()
    with runner_process(runner_environment(spec=SMALL)) as runner, runner.wait_ready().client() as http:
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
        assert runner.wait_for_exit() == 0
    events = [line["event"] for line in runner.lines if line["event"] != "log"]
    assert events == ["listening", "loading", "loaded", "drain", "exit"]


def test_the_drain_ends_after_its_timeout() -> None:
    weights()
    env = runner_environment(spec=SMALL, CORRAL_DRAIN_TIMEOUT="200ms")
    endless = LONG | {"options": {"num_predict": 5000, "temperature": 0}}
    with runner_process(env) as runner, runner.wait_ready().client() as http:
        with http.stream("POST", "/api/generate", json=endless) as response:
            lines = response.iter_lines()
            next(lines)
            runner.process.send_signal(signal.SIGTERM)
            assert runner.wait_for_exit() == 0
            with pytest.raises(httpx.RemoteProtocolError):
                list(lines)
        assert runner.event("drain_timeout") is not None


def test_sigterm_ends_a_status_stream() -> None:
    weights()
    with runner_process(runner_environment(spec=SMALL)) as runner, runner.wait_ready().client() as http:
        with http.stream("GET", "/activity?watch=true") as response:
            lines = response.iter_lines()
            next(lines)
            runner.process.send_signal(signal.SIGTERM)
            assert '"draining":true' in list(lines)[-1]
        assert runner.wait_for_exit() == 0


def test_sigterm_while_loading_exits_at_once() -> None:
    weights()
    with runner_process(runner_environment()) as runner:
        until(lambda: runner.event("loading"), START_TIMEOUT, what="loading")
        runner.process.send_signal(signal.SIGTERM)
        assert runner.wait_for_exit() == 0


def test_a_load_without_progress_ends_the_runner_with_the_reason(tmp_path: Path) -> None:
    weights()
    told = tmp_path / "told"
    with runner_process(runner_environment(OLLAMA_LOAD_TIMEOUT="1us", CORRAL_TERMINATION_LOG=str(told))) as runner:
        assert runner.wait_for_exit() == 1
    assert "the load made no progress for 1µs (OLLAMA_LOAD_TIMEOUT)" in told.read_text()


def test_a_runner_exits_when_its_parent_dies() -> None:
    reader, writer = os.pipe()
    try:
        with runner_process(runner_environment(CORRAL_PARENT_FD=str(reader)), pass_fds=[reader]) as runner:
            assert runner.port
            os.close(writer)
            assert runner.wait_for_exit() == 1
    finally:
        os.close(reader)


def test_a_runner_serves_an_inherited_socket() -> None:
    weights()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        number = sock.fileno()
        with runner_process(runner_environment(spec=SMALL, CORRAL_LISTEN_FD=str(number)), pass_fds=[number]) as runner:
            assert httpx.get(f"http://127.0.0.1:{sock.getsockname()[1]}/healthz", timeout=60).status_code == 200
            assert runner.port == sock.getsockname()[1]


def test_http_is_up_before_the_model_is_loaded() -> None:
    weights()
    with runner_process(runner_environment(spec=SMALL)) as runner, runner.client() as http:
        assert http.get("/activity").json()["loaded"] in (False, True)
        runner.wait_ready()
        assert http.get("/readyz").status_code == 200
        assert http.get("/info").json()["contextLength"] == 512


def failed_start(source: str, tmp_path: Path, **spec: object) -> str:
    """Return the termination message of a runner that cannot start; stderr must have the same text."""
    said = tmp_path / "termination"
    with runner_process(runner_environment(source, spec=spec, CORRAL_TERMINATION_LOG=str(said))) as runner:
        assert runner.wait_for_exit() == 1
    message = said.read_text()
    assert message.count("\n") == 1
    assert message in "".join(runner.errors)
    return message


def test_missing_weights(tmp_path: Path) -> None:
    assert "nothing.gguf" in failed_start(f"file://{tmp_path}/nothing.gguf", tmp_path)


def test_weights_that_are_not_gguf(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"<html>not found</html>" * 100)
    message = failed_start(f"file://{tmp_path}/model.gguf", tmp_path)
    assert "model.gguf" in message
    assert "GGUF" in message


def test_truncated_weights(tmp_path: Path) -> None:
    whole = weights()
    with whole.open("rb") as file:
        (tmp_path / "model.gguf").write_bytes(file.read(20_000_000))
    assert "model.gguf" in failed_start(f"file://{tmp_path}/model.gguf", tmp_path)


def test_weights_with_a_different_digest(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"something else").hexdigest()
    assert digest in failed_start(f"file://{weights()}", tmp_path, sha256=digest)


def test_an_invalid_model_in_the_environment(tmp_path: Path) -> None:
    said = tmp_path / "termination"
    env = runner_environment() | {"CORRAL_MODEL": "{", "CORRAL_TERMINATION_LOG": str(said)}
    with runner_process(env) as runner:
        assert runner.wait_for_exit() == 1
    assert "CORRAL_MODEL" in said.read_text()


def test_an_address_in_use(tmp_path: Path) -> None:
    said = tmp_path / "termination"
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = str(sock.getsockname()[1])
        with runner_process(
            runner_environment() | {"CORRAL_PORT": port, "CORRAL_TERMINATION_LOG": str(said)}
        ) as runner:
            assert runner.wait_for_exit() == 1
    assert f"cannot listen on 127.0.0.1:{port}" in said.read_text()
