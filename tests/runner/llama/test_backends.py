"""Backends for GPUs that are in the image and cannot be loaded."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from corral_server.runner.engine.contexts import EngineOptions, GPUOptions
from corral_server.runner.engine.loading.offload import plan_offload
from corral_server.runner.llama import library


def compile_library(target: Path, *options: str) -> None:
    subprocess.run(["cc", "-shared", "-o", str(target), "-x", "c", "/dev/null", *options], check=True)


def write_cuda_backend(folder: Path, driver_name: str) -> None:
    """Write a backend that needs a driver, which the loader does not find, beside one for the CPU."""
    (folder / "libggml-cpu-x64.so").touch()
    driver = folder / "driver" / driver_name
    driver.parent.mkdir()
    compile_library(driver, f"-Wl,-soname,{driver.name}")
    compile_library(folder / "libggml-cuda.so", "-x", "none", "-Wl,--no-as-needed", str(driver))


def test_a_backend_without_its_driver_is_named_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cuda_backend(tmp_path, "libcorraltestdriver.so.1")
    compile_library(tmp_path / "libggml-vulkan.so")
    monkeypatch.setenv(library.BACKENDS_SETTING, str(tmp_path))
    [reason] = library.unloadable_backends()
    assert reason.startswith("libggml-cuda.so: libcorraltestdriver.so.1: cannot open shared object file")


def test_without_nvidias_driver_the_reason_says_what_to_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cuda_backend(tmp_path, "libcuda.so.1")
    monkeypatch.setenv(library.BACKENDS_SETTING, str(tmp_path))
    reason = plan_offload(tmp_path, EngineOptions(gpu=GPUOptions(1)), ()).reason
    assert "finds none: NVIDIA's driver is not in the container: check the driver and the device plugin" in reason
