"""llama.cpp as a library: found without its Python package's own imports, and made ready once in a process.

What always holds: the compute backends are loaded before anything else, through the very ``libggml`` that libllama
links (each copy in the wheel has a registry of its own). Only the adapter's modules, ``llama*.py``, use ``C``.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from corral_server.runner import llama_log
from corral_server.runner.generation import LoadFailed
from corral_server.runner.threads import spin_briefly


def _load_library() -> ModuleType:
    """``llama_cpp.llama_cpp`` without the package's ``__init__``, which imports what serves the high-level API.

    That would add a quarter of a second to every start of a runner.
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

_on_log = C.llama_log_callback(llama_log.receive)
"""Kept for ever: llama.cpp calls it from any thread."""


@functools.cache
def library() -> ctypes.CDLL:
    """The ``libggml`` that libllama links."""
    folder = Path(C.__file__).parent / "lib"
    return ctypes.CDLL(str(next(path for name in ("libggml.so.0", "libggml.so") if (path := folder / name).exists())))


@functools.cache
def initialize() -> str:
    """Loads the compute backends once; returns the file name of the CPU kernels in use."""
    spin_briefly()
    C.llama_log_set(_on_log, ctypes.c_void_p(0))
    package, ggml = Path(C.__file__).parent, library()
    for folder in (package.parent / "bin", package / "lib"):
        if any(folder.glob("libggml-cpu-*.so")):
            ggml.ggml_backend_load_all_from_path.argtypes = [ctypes.c_char_p]
            ggml.ggml_backend_load_all_from_path(str(folder).encode())
            break
    C.llama_backend_init()
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    if ggml.ggml_backend_dev_count() == 0:
        raise LoadFailed("llama.cpp found no compute backend: its libggml-cpu-*.so files are missing beside it")
    return _loaded_kernels()


def gpus_found() -> bool:
    """Whether a GPU may take a part of a model: there is none without a driver, or in a build for CPUs."""
    initialize()
    return bool(C.llama_supports_gpu_offload())


def _loaded_kernels() -> str:
    maps = Path("/proc/self/maps")
    found = re.search(r"/(libggml-cpu[^/\s]*)\s", maps.read_text()) if maps.exists() else None
    return found[1] if found else "built in"
