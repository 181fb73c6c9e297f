"""llama.cpp's Vulkan backend with Mesa's lavapipe, which is a GPU to ggml, in processes of their own.

Which backends a process has is decided once, when llama.cpp is initialized. Mesa compiles the shaders that a model uses
at their first use, which takes most of a minute, and keeps them in the user's cache (``mesa_shader_cache``).
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from corral_server.runner.llama.library import BACKENDS_SETTING, backend_folder
from scripts import llama_vulkan


def vulkan_environment(folder: Path, *, devices: int = 1) -> dict[str, str]:
    """Return an environment with as many lavapipe devices; ``folder`` is filled with the backends.

    The test is skipped where the backend is not compiled or Vulkan has no driver.
    """
    library, cpu = llama_vulkan.backend().library, backend_folder()
    if not library.is_file():
        pytest.skip("llama.cpp's Vulkan backend is not compiled: run make vulkan")
    if cpu is None:
        pytest.skip("the wheel of llama-cpp-python has its CPU backend built in")
    if not any(Path("/usr/share/vulkan/icd.d").glob("lvp_icd*.json")):
        pytest.skip("Mesa's lavapipe is not installed: apt-get install mesa-vulkan-drivers libvulkan1")
    ctypes.CDLL("libvulkan.so.1")
    for file in (library, *cpu.glob("libggml-cpu*.so")):
        (folder / file.name).symlink_to(file)
    return {
        **os.environ,
        BACKENDS_SETTING: str(folder),
        "GGML_VK_VISIBLE_DEVICES": ",".join("0" * devices),
        "VK_LOADER_LAYERS_DISABLE": "~all~",
    }


def load_all(environment: Mapping[str, str], cases: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Load models one after the other in one process; see ``tests.support.offload_process``."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.offload_process"],
        input=json.dumps(list(cases)),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    results: list[dict[str, object]] = json.loads(done.stdout)
    return results
