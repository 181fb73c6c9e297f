"""llama.cpp's shared libraries: located without the imports of the Python package, and initialized once per process.

Invariants:

- the compute backends are loaded before anything else, through the ``libggml`` that libllama links: each copy of it in
  the wheel has a backend registry of its own;
- only the modules of this package use ``C``.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from corral_server.runner.llama import log
from corral_server.runner.llama.errors import LoadFailed
from corral_server.system.cores import limit_spinning

BACKENDS_SETTING = "CORRAL_LLAMA_BACKENDS"
"""Environment variable with the folder of ggml's backends; the wheel's own folder without it."""

_NAMES = ("libggml.so.0", "libggml.so", "libggml.0.dylib", "libggml.dylib")


def _load_library() -> ModuleType:
    """Import ``llama_cpp.llama_cpp`` without the package's ``__init__``, which imports the high-level API.

    That saves a quarter of a second at every start of a runner.
    """
    if "llama_cpp" not in sys.modules:
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError("llama-cpp-python is not installed; run scripts/llama_wheel.py and install the wheel")
        package = ModuleType("llama_cpp")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["llama_cpp"] = package
    return importlib.import_module("llama_cpp.llama_cpp")


C: Any = _load_library()

log_to_python = C.llama_log_callback(log.log_callback)
"""Reference that keeps the callback alive: llama.cpp calls it from any thread."""


@functools.cache
def library() -> ctypes.CDLL:
    """Return the ``libggml`` that libllama links."""
    return ctypes.CDLL(str(library_file(Path(C.__file__).parent / "lib")))


def library_file(folder: Path) -> Path:
    """Return the file of ``libggml`` in a folder, by its name on Linux or on macOS. Raises LoadFailed."""
    for name in _NAMES:
        if (path := folder / name).exists():
            return path
    raise LoadFailed(f"{folder} has none of {', '.join(_NAMES)}; install llama-cpp-python again")


def backend_folder() -> Path | None:
    """Return the folder whose backends are offered to ggml; None when they are linked into the library."""
    return next((folder for folder in _backend_folders() if any(folder.glob("libggml-cpu*.so"))), None)


def _backend_folders() -> Iterator[Path]:
    if folder := os.environ.get(BACKENDS_SETTING, ""):
        yield Path(folder)
        return
    package = Path(C.__file__).parent
    yield package.parent / "bin"
    yield package / "lib"


@functools.cache
def initialize() -> str:
    """Load the compute backends; return the file name of the CPU backend in use.

    ``ggml_backend_load_all_from_path`` (ggml-backend-reg.cpp) loads the CPU variant of the folder with the highest
    score for this CPU. Raises LoadFailed when there is none.
    """
    limit_spinning()
    C.llama_log_set(log_to_python, ctypes.c_void_p(0))
    ggml = library()
    if (folder := backend_folder()) is not None:
        ggml.ggml_backend_load_all_from_path.argtypes = [ctypes.c_char_p]
        ggml.ggml_backend_load_all_from_path(str(folder).encode())
    C.llama_backend_init()
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    if ggml.ggml_backend_dev_count() == 0:
        source = os.environ.get(BACKENDS_SETTING) or "the folder of llama-cpp-python"
        raise LoadFailed(f"llama.cpp found no compute backend: {source} has no libggml-cpu-*.so for this CPU")
    return _loaded_kernels()


def supports_gpu_offload() -> bool:
    """Whether a GPU can hold a part of a model: false without a driver and in a build for CPUs."""
    initialize()
    return bool(C.llama_supports_gpu_offload())


def unloadable_backends() -> list[str]:
    """Return the reasons why backends for GPUs in the folder cannot be loaded, by the loader's words.

    ggml passes over such a backend in silence (``ggml_backend_load_best``). Without the driver of the node, CUDA's has
    the reason ``libcuda.so.1: cannot open shared object file``.
    """
    reasons = []
    for file in sorted((backend_folder() or Path("/nonexistent")).glob("libggml-*.so")):
        if not file.name.startswith(("libggml-base", "libggml-cpu")):
            try:
                ctypes.CDLL(str(file))
            except OSError as error:
                reasons.append(f"{file.name}: {error}")
    return reasons


def _loaded_kernels() -> str:
    maps = Path("/proc/self/maps")
    found = re.search(r"/(libggml-cpu[^/\s]*)\s", maps.read_text()) if maps.exists() else None
    return found[1] if found else "built in"
