"""End to end on one machine: ``corral serve``, the real runner, a real model, real clients."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import ollama
import pytest

from tests.local.parts import alive
from tests.local.served import START, Served, model_file, serving
from tests.support.gguf_files import gguf_bytes
from tests.support.waiting import until

pytestmark = pytest.mark.process


def at_zero(served: Served) -> bool:
    return not served.runners() and not served.client.ps().models


def test_a_model_loads_streams_unloads_and_loads_again(tmp_path: Path) -> None:
    with serving(tmp_path, model_file(tmp_path, "tiny")) as served:
        assert [model.model for model in served.client.list().models] == ["tiny:latest"]
        assert at_zero(served)
        for round_number in (1, 2):
            options = {"num_predict": 6, "temperature": 0.0}
            chunks = list(served.client.generate("tiny", "Hello", stream=True, options=options, keep_alive=0.5))
            assert len(chunks) > 3
            assert chunks[-1].done_reason == "length"
            until(lambda: at_zero(served), START)
            reasons = [event["reason"] for event in served.events("plan") if event["replicas"] == 0]
            assert reasons == ["unloaded: keep_alive expired"] * round_number
        order = [str(event["event"]) for event in served.events("demand", "started", "loading", "loaded", "exited")]
        assert order[:3] == ["demand", "started", "loading"]
        assert sorted(order[3:5]) == ["demand", "loaded"]  # a runner's log line can arrive after its status
        assert [event["status"] for event in served.events("exited")] == [0, 0]


@pytest.mark.slow
def test_keep_alive_zero_serves_and_then_unloads(tmp_path: Path) -> None:
    with serving(tmp_path, model_file(tmp_path, "tiny", keepAlive=0)) as served:
        for _ in range(2):
            assert served.generate("tiny")
            until(lambda: at_zero(served), START)
        assert len(served.events("started")) == 2


@pytest.mark.slow
def test_an_unload_request_unloads_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, model_file(tmp_path, "tiny", keepAlive=-1)) as served:
        served.client.generate("tiny")
        assert [model.model for model in served.client.ps().models] == ["tiny:latest"]
        assert served.client.generate("tiny", keep_alive=0).done_reason == "unload"
        until(lambda: at_zero(served), START)


@pytest.mark.slow
def test_corral_run_and_ps(tmp_path: Path) -> None:
    with serving(tmp_path, model_file(tmp_path, "tiny", parameters={"num_predict": 4})) as served:

        def corral(*words: str) -> str:
            command = [sys.executable, "-m", "corral_server.local", *words]
            environment = os.environ | {"OLLAMA_HOST": served.url}
            return subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True, timeout=START
            ).stdout

        assert corral("run", "tiny", "Say hello").strip()
        lines = corral("ps").splitlines()
        assert lines[0].split() == ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
        assert lines[1].startswith("tiny:latest")
        assert "100% CPU" in lines[1]


@pytest.mark.slow
def test_a_runner_crash_ends_its_stream_with_an_error_and_the_next_request_is_served(tmp_path: Path) -> None:
    with serving(tmp_path, model_file(tmp_path, "tiny")) as served:
        with served.stream("tiny", tokens=2000) as lines:
            next(lines)
            os.kill(served.runners()[0], signal.SIGKILL)
            assert "error" in list(lines)[-1]
        assert served.generate("tiny")
        assert [event["status"] for event in served.events("exited")] == [-signal.SIGKILL]


@pytest.mark.slow
def test_runners_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path, model_file(tmp_path, "tiny")) as served:
        served.generate("tiny")
        (runner,) = served.runners()
        served.process.kill()
        served.process.wait()
        until(lambda: not alive(runner), what="the end of the runner")


@pytest.mark.slow
def test_runners_end_when_their_parent_is_killed_during_load(tmp_path: Path) -> None:
    with serving(tmp_path, model_file(tmp_path, "tiny", minReplicas=1)) as served:
        (runner,) = until(served.runners, START)
        served.process.kill()
        served.process.wait()
        until(lambda: not alive(runner), what="the end of the runner")


@pytest.mark.slow
def test_added_changed_and_removed_model_files_take_effect(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    with serving(tmp_path, folder) as served:
        with pytest.raises(ollama.ResponseError, match="model 'tiny' not found"):
            served.generate("tiny")
        path = model_file(folder, "tiny")
        until(lambda: served.client.list().models)
        served.generate("tiny")
        model_file(folder, "tiny", names=["renamed"], contextLength=512)
        until(lambda: [model.model for model in served.client.list().models] == ["renamed:latest"])
        served.generate("renamed")
        until(lambda: [model.context_length for model in served.client.ps().models] == [512], START)
        path.write_text("{")
        until(lambda: served.events("file_rejected"))
        assert served.generate("renamed")
        path.unlink()
        until(lambda: not served.client.list().models)
        until(lambda: not served.runners(), START)


@pytest.mark.slow
def test_no_request_is_lost_while_a_model_is_edited(tmp_path: Path) -> None:
    path = model_file(tmp_path, "tiny")
    with serving(tmp_path, path) as served:
        served.generate("tiny")
        with served.stream("tiny", tokens=40) as lines:
            next(lines)
            model_file(tmp_path, "tiny", contextLength=512)
            while served.client.ps().models[0].context_length != 512:
                assert served.generate("tiny", tokens=2)
            assert list(lines)[-1]["done"] is True
        until(lambda: len(served.runners()) == 1, START)
        assert {event["status"] for event in served.events("exited")} == {0}


@pytest.mark.slow
def test_two_models_alternate_without_cutting_a_stream(tmp_path: Path) -> None:
    paths = [model_file(tmp_path, name) for name in ("one", "two")]
    answers: list[str] = []
    with serving(tmp_path, *paths, environment={"OLLAMA_MAX_LOADED_MODELS": "1"}) as served:
        with served.stream("one", tokens=40) as lines:
            next(lines)
            other = threading.Thread(target=lambda: answers.append(served.generate("two")))
            other.start()
            try:
                until(lambda: [event for event in served.events("plan") if event["draining"]], START)
                last = list(lines)[-1]
            finally:
                other.join(START)
        assert last["done"] is True
        assert len(answers) == 1
        assert served.generate("one")
        assert [event["model"] for event in served.events("started")] == ["one", "two", "one"]
        assert {event["status"] for event in served.events("exited")} == {0}


def test_missing_weights_are_an_immediate_error(tmp_path: Path) -> None:
    with serving(tmp_path, model_file(tmp_path, "lost", source="file:///nowhere/model.gguf")) as served:
        with pytest.raises(ollama.ResponseError, match=r"/nowhere/model\.gguf does not exist") as error:
            served.generate("lost")
        assert error.value.status_code == 500
        assert not served.events("started")


@pytest.mark.slow
def test_weights_that_do_not_load_are_an_error_after_three_attempts(tmp_path: Path) -> None:
    (tmp_path / "odd.gguf").write_bytes(gguf_bytes())
    paths = [model_file(tmp_path, "odd", source=f"file://{tmp_path}/odd.gguf"), model_file(tmp_path, "tiny")]
    with serving(tmp_path, *paths) as served:
        with pytest.raises(ollama.ResponseError, match="could not be loaded, 3 attempts in a row failed: ") as error:
            served.generate("odd")
        assert error.value.status_code == 500
        body = {"model": "odd", "messages": [{"role": "user", "content": "hi"}]}
        answer = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=START)
        assert answer.json()["error"]["type"] == "api_error"
        assert served.generate("tiny")


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path, model_file(tmp_path, "tiny")) as served:
        yield served


@pytest.mark.slow
def test_sigterm_waits_for_a_stream_and_then_ends_the_runners(one: Served) -> None:
    with one.stream("tiny", tokens=40) as lines:
        next(lines)
        (runner,) = one.runners()
        one.process.send_signal(signal.SIGTERM)
        assert list(lines)[-1]["done"] is True
    assert one.process.wait(START) == 0
    assert not alive(runner)


@pytest.mark.slow
def test_a_second_signal_ends_everything_at_once(one: Served) -> None:
    with one.stream("tiny", tokens=5000) as lines:
        next(lines)
        (runner,) = one.runners()
        one.process.send_signal(signal.SIGINT)
        until(lambda: one.events("signal"))
        one.process.send_signal(signal.SIGINT)
        assert one.process.wait(START) == 0
        assert not alive(runner)


@pytest.mark.slow
def test_sigterm_serves_a_pending_request_of_a_cold_model(one: Served) -> None:
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(one.generate("tiny")))
    asking.start()
    try:
        until(lambda: one.events("started"), START)
        one.process.send_signal(signal.SIGTERM)
    finally:
        asking.join(START)
    assert len(answers) == 1
    assert one.process.wait(START) == 0
    assert [event["status"] for event in one.events("exited")] == [0]
