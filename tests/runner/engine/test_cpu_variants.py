"""The tests of exact answers, sampling and decoding with a second variant of the CPU backend.

In this process they run with the best variant for this CPU. Another one needs another process: ggml loads one CPU
backend per process.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from corral_server.runner.llama.library import initialize
from tests.support.cpu_variants import offer_variant

TESTS = Path(__file__).resolve().parent.parent
MODULES = (
    "engine/test_engine.py",
    "engine/test_exactness.py",
    "engine/test_speculation.py",
    "sampling/test_constrained.py",
    "sampling/test_logprobs.py",
    "sampling/test_shortlist.py",
)


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(1800)  # it runs six modules of tests
def test_answers_are_exact_with_the_haswell_variant(tmp_path: Path) -> None:
    """Haswell has AVX2 and FMA: the smallest common denominator of the CPUs in use."""
    if initialize() == "libggml-cpu-haswell.so":
        pytest.skip("haswell is the best variant for this CPU, so the other tests run with it")
    environment = offer_variant("haswell", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(TESTS / name) for name in MODULES)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
