"""Builds llama.cpp's ROCm backend once into the user's cache and prints the path of ``libggml-hip.so``.

It needs the ROCm toolkit in /opt/rocm, which the stage ``runner-rocm-env`` of the Dockerfile has. It was never built so
far. The environment variable GPU_TARGETS is a list of architectures, since CMake would take those of the GPUs of this
machine (llama.cpp's ``docs/build.md``, section HIP); the default is Instinct MI200 and MI300, and Radeon since RDNA 2.

Progress goes to standard error; standard output has the path alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.ggml_backend import Backend  # a script's sys.path has only its own folder

ROCM = Path("/opt/rocm")
TARGETS = "gfx90a;gfx942;gfx1030;gfx1100;gfx1101;gfx1200;gfx1201"


def backend() -> Backend:
    targets = os.environ.get("GPU_TARGETS") or TARGETS
    return Backend("hip", ("-DGGML_HIP=ON", f"-DGPU_TARGETS={targets}"), _prepare)


def lacking() -> list[str]:
    """Return what the build needs and this machine lacks, besides compilers."""
    return [] if (ROCM / "lib/llvm/bin/clang++").exists() else [f"the ROCm toolkit in {ROCM}"]


def _prepare(_work: Path) -> tuple[tuple[str, ...], Mapping[str, str]]:
    flags = f"-DCMAKE_HIP_COMPILER={ROCM}/lib/llvm/bin/clang++", f"-DCMAKE_PREFIX_PATH={ROCM}"
    return flags, {"ROCM_PATH": str(ROCM), "HIP_PATH": str(ROCM)}


if __name__ == "__main__":
    print(backend().provide(missing=lacking, packages="", duration="hours"))
