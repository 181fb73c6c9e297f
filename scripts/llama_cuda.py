"""Builds llama.cpp's CUDA backend once into the user's cache and prints the path of ``libggml-cuda.so``.

The compiler, its headers and libraries are NVIDIA's wheels in ``requirements/cuda.txt``, whose hashes are checked; no
CUDA toolkit is installed. The environment variable CUDA_ARCHITECTURES is CMake's ``CMAKE_CUDA_ARCHITECTURES``, for
example ``90-real`` for the H100 and H200 alone; without it llama.cpp's own list is compiled, from Turing to Blackwell
(``ggml/src/ggml-cuda/CMakeLists.txt``).

- CUDA 13.0 is the oldest release whose toolkit is in these wheels; its programs run with every driver from 580.
- The library of the driver, ``libcuda.so.1``, is on GPU nodes only. It is linked with an empty stand-in of its name,
  which compilers that link as needed would drop: then no function of the driver is found at run time.
- 146 of the 156 steps compile CUDA code, most of them for a minute or more for a single architecture.

Progress goes to standard error; standard output has the path alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import llama_wheel  # a script's sys.path has only its own folder
from scripts.ggml_backend import Backend

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements" / "cuda.txt"
FLAGS = ("-DGGML_CUDA=ON", "-DGGML_CUDA_NCCL=OFF")
LINKED = ("cublas", "cublasLt", "cudart")
"""Libraries that the backend is linked with; the wheels have them by their version alone."""


def backend() -> Backend:
    architectures = os.environ.get("CUDA_ARCHITECTURES", "")
    own = (f"-DCMAKE_CUDA_ARCHITECTURES={architectures}",) if architectures else ()
    return Backend("cuda", (*FLAGS, *own), _prepare)


def _prepare(work: Path) -> tuple[tuple[str, ...], Mapping[str, str]]:
    command = [*llama_wheel.PIP, "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    if subprocess.run([*command, "--target", str(work / "cuda"), "-r", str(REQUIREMENTS)], check=False).returncode != 0:
        raise SystemExit("the CUDA compiler cannot be installed; pip's message above says why")
    toolkit = next((work / "cuda/nvidia").glob("cu[0-9]*"))
    complete(toolkit)
    flags = (
        f"-DCMAKE_CUDA_COMPILER={toolkit}/bin/nvcc",
        f"-DCUDAToolkit_ROOT={toolkit}",
        "-DCMAKE_MODULE_LINKER_FLAGS=-Wl,--no-as-needed",
    )
    return flags, {"PATH": f"{toolkit}/bin:{work / 'tools/bin'}:{os.environ['PATH']}"}


def complete(toolkit: Path) -> None:
    """Add to the folder of the wheels what nvcc and CMake's FindCUDAToolkit look for in an installed toolkit."""
    libraries = toolkit / "lib"
    (toolkit / "lib64").symlink_to("lib")
    for name in LINKED:
        newest = next(libraries.glob(f"lib{name}.so.[0-9]*"))
        (libraries / f"lib{name}.so").symlink_to(newest.name)
    stubs = libraries / "stubs"
    stubs.mkdir()
    compiler = shutil.which("cc") or "gcc"
    shared = [compiler, "-shared", "-Wl,-soname,libcuda.so.1", "-o", str(stubs / "libcuda.so"), "-x", "c", "/dev/null"]
    subprocess.run(shared, check=True)


if __name__ == "__main__":
    print(backend().provide(missing=list, packages="", duration="hours"))
