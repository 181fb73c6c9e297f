"""The whole thread on one machine: ``corral serve``, the real runner, a real model, real clients."""

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


def test_from_zero_to_a_streamed_answer_to_zero_and_again(tmp_path: Path) -> None:
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
            assert reasons == ["unloaded: its keep_alive ran out"] * round_number
        order = [str(event["event"]) for event in served.events("demand", "started", "loading", "loaded", "exited")]
        assert order[:3] == ["demand", "started", "loading"]
        assert sorted(order[3:5]) == ["demand", "loaded"]  # a runner's own line may come after the activity it tells
        assert [event["status"] for event in served.events("exited")] == [0, 0]


@pytest.mark.slow
def test_a_keep_alive_of_zero_serves_and_then_unloads(tmp_path: Path) -> None:
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
def test_the_command_line_asks_and_lists(tmp_path: Path) -> None:
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
def test_a_runner_that_crashes_ends_its_stream_with_an_error_and_the_next_request_is_served(tmp_path: Path) -> None:
    with serving(tmp_path, model_file(tmp_path, "tiny")) as served:
        with served.stream("tiny", tokens=2000) as lines:
            next(lines)
            os.kill(served.runners()[0], signal.SIGKILL)
            assert "error" in list(lines)[-1]
        assert served.generate("tiny")
        assert [event["status"] for event in served.events("exited")] == [-signal.SIGKILL]


@pytest.mark.slow
def test_no_runner_survives_a_parent_that_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path, model_file(tmp_path, "tiny")) as served:
        served.generate("tiny")
        (runner,) = served.runners()
        served.process.kill()
        served.process.wait()
        until(lambda: not alive(runner), what="the end of the runner")


@pytest.mark.slow
def test_no_runner_survives_a_parent_that_is_killed_while_it_loads(tmp_path: Path) -> None:
    with serving(tmp_path, model_file(tmp_path, "tiny", minReplicas=1)) as served:
        (runner,) = until(served.runners, START)
        served.process.kill()
        served.process.wait()
        until(lambda: not alive(runner), what="the end of the runner")


@pytest.mark.slow
def test_model_files_that_come_change_and_go_take_effect(tmp_path: Path) -> None:
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
        until(lambda: served.events("file-refused"))
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
def test_two_models_take_turns_in_one_place_and_a_stream_is_not_cut(tmp_path: Path) -> None:
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


def test_missing_weights_are_a_clear_error_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, model_file(tmp_path, "lost", source="file:///nowhere/model.gguf")) as served:
        with pytest.raises(ollama.ResponseError, match="there is no file /nowhere/model") as error:
            served.generate("lost")
        assert error.value.status_code == 500
        assert not served.events("started")


@pytest.mark.slow
def test_weights_that_do_not_load_are_a_clear_error_after_three_tries_and_others_are_served(tmp_path: Path) -> None:
    (tmp_path / "odd.gguf").write_bytes(gguf_bytes())
    paths = [model_file(tmp_path, "odd", source=f"file://{tmp_path}/odd.gguf"), model_file(tmp_path, "tiny")]
    with serving(tmp_path, *paths) as served:
        with pytest.raises(ollama.ResponseError, match="could not be loaded, 3 tries in a row failed: ") as error:
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
def test_sigterm_lets_a_stream_end_and_then_ends_the_runners(one: Served) -> None:
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
def test_sigterm_lets_a_request_that_waits_for_a_cold_model_be_served(one: Served) -> None:
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
