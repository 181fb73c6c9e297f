"""The memory estimate of each GPU beside what llama.cpp plans on Vulkan devices."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.vulkan import vulkan_environment

pytestmark = [pytest.mark.process, pytest.mark.vulkan]

PROGRAM = Path(__file__).parents[3] / "bench/gpu_memory_prediction.py"
MODELS = ("Llama-3.1-8B", "Qwen3-30B-A3B", "Gemma-3-4B")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, float]:
    """Return the summary over one to three GPUs, with all layers, half of them, and experts in host memory."""
    environment = vulkan_environment(tmp_path_factory.mktemp("backends"))
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *MODELS],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    summary: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return summary


def test_nothing_is_predicted_below_what_llama_cpp_takes(compared: Mapping[str, float]) -> None:
    assert compared["rows"] == 189
    assert compared["below"] == 0


def test_with_all_layers_on_gpus_the_prediction_is_at_most_5_percent_above(compared: Mapping[str, float]) -> None:
    assert 0 < compared["above_percent"] <= 5
