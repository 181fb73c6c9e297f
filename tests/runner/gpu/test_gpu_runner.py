"""Real runner processes with GPUs: they answer as on the CPU, report what is where, and say what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.runner_process import RunnerProcess, runner_environment, runner_process
from tests.support.tiny_model import write_tiny_model
from tests.support.vulkan import vulkan_environment

pytestmark = [pytest.mark.process, pytest.mark.vulkan]

QUESTION = {"model": "smollm2", "prompt": "the th", "stream": False, "options": {"num_predict": 4, "temperature": 0}}


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return vulkan_environment(tmp_path_factory.mktemp("backends"), devices=2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("weights"))


def environment(weights: Path, gpu: Mapping[str, object], **settings: str) -> dict[str, str]:
    spec = {"contextLength": 256, "parallel": 1, "gpu": gpu}
    return runner_environment(weights.as_uri(), spec=spec, **settings)


@pytest.fixture(scope="module")
def on_gpus(backends: Mapping[str, str], weights: Path) -> Iterator[RunnerProcess]:
    with runner_process({**environment(weights, {"count": 2, "offload": "full"}), **_own(backends)}) as runner:
        yield runner.wait_ready()


@pytest.fixture(scope="module")
def without_gpus(weights: Path) -> Iterator[RunnerProcess]:
    """A runner whose image has no backend for its GPU, or whose GPU was lost."""
    with runner_process(environment(weights, {"count": 1})) as runner:
        yield runner.wait_ready()


def _own(backends: Mapping[str, str]) -> dict[str, str]:
    return {name: backends[name] for name in ("CORRAL_LLAMA_BACKENDS", "GGML_VK_VISIBLE_DEVICES")}


def status(runner: RunnerProcess) -> dict[str, Any]:
    with runner.client() as client:
        found: dict[str, Any] = client.get("/activity").json()
        return found


def generated(runner: RunnerProcess) -> list[int]:
    """Return the tokens of the whole conversation."""
    with runner.client(timeout=200) as client:
        answer = client.post("/api/generate", json=QUESTION).json()
        tokens: list[int] = answer["context"]
        return tokens


def test_the_answer_from_gpus_is_the_cpus(on_gpus: RunnerProcess, without_gpus: RunnerProcess) -> None:
    assert generated(on_gpus) == generated(without_gpus)


def test_the_status_says_what_is_on_which_gpu(on_gpus: RunnerProcess) -> None:
    found = status(on_gpus)
    offload = found["offload"]
    assert (offload["layers"], offload["total_layers"], offload["reason"]) == (3, 3, "")
    assert [device["name"] for device in offload["devices"]] == ["Vulkan0", "Vulkan1"]
    assert all("llvmpipe" in device["description"] and device["bytes"] > 0 for device in offload["devices"])
    assert found["vram_bytes"] == sum(device["bytes"] for device in offload["devices"])
    assert found["vram_bytes"] < found["size_bytes"]


def test_the_metrics_have_the_predicted_memory_beside_the_measured(on_gpus: RunnerProcess) -> None:
    with on_gpus.client() as client:
        text = client.get("/metrics").text
    for device in status(on_gpus)["offload"]["devices"]:
        labels = f'{{device="{device["name"]}",model="default/smollm2"}}'
        for name in ("bytes", "predicted_bytes"):
            assert _value(text, f"corral_runner_device_{name}", labels) == device[name]
    assert _value(text, "corral_runner_gpu_layers", '{model="default/smollm2"}') == 3


def _value(text: str, name: str, labels: str) -> float:
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name}{labels}"))


def test_the_log_has_the_seconds_of_each_phase_of_the_load(on_gpus: RunnerProcess) -> None:
    event = on_gpus.event("loaded")
    assert event is not None
    phases = event["phases"]
    assert isinstance(phases, dict)
    assert list(phases) == ["header", "plan", "open", "upload", "contexts"]
    assert event["gpu_layers"] == 3


def test_a_runner_without_its_gpu_computes_on_the_cpu_and_says_so(without_gpus: RunnerProcess) -> None:
    found = status(without_gpus)
    assert (found["vram_bytes"], found["offload"]["layers"], found["offload"]["devices"]) == (0, 0, [])
    expected = "the Model has 1 GPU, but llama.cpp finds none: check the driver and the runner's image"
    assert found["offload"]["reason"] == expected


def test_a_runner_that_must_have_a_gpu_ends_without_one(weights: Path, tmp_path: Path) -> None:
    assert "llama.cpp finds none" in _failure(environment(weights, {"count": 1, "offload": "full"}), tmp_path)


def test_a_load_that_does_not_fit_ends_the_runner_with_the_figures(
    backends: Mapping[str, str], weights: Path, tmp_path: Path
) -> None:
    reserved = environment(weights, {"count": 1, "offload": "full"}, OLLAMA_GPU_OVERHEAD=str(2 << 30))
    text = _failure({**reserved, **_own(backends)}, tmp_path)
    assert "the model does not fit the GPUs: Vulkan0 (llvmpipe" in text
    assert text.endswith("and 0 MiB of 2048 MiB is free")


def _failure(env: Mapping[str, str], folder: Path) -> str:
    """Return the termination message of a runner that fails."""
    message = folder / "message"
    with runner_process({**env, "CORRAL_TERMINATION_LOG": str(message)}) as runner:
        assert runner.wait_for_exit() == 1
    return message.read_text().strip()
