"""Findings about llama.cpp and GPUs, from what the child process reports and the files in /dev."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from corral_server.local.doctor.finding import Finding, Level
from corral_server.local.doctor.gpus import check_gpus, check_llama
from corral_server.local.doctor.probe import Probe, run_probe

CPU_ONLY = {"version": "0.3.36", "cpu_backend": "libggml-cpu-haswell.so", "devices": [], "unloadable": []}
H200 = {"name": "CUDA0", "description": "NVIDIA H200", "total": 150 * 10**9, "free": 149 * 10**9}


def gpus(
    dev: Path,
    *files: str,
    nvml: dict[str, object] | None = None,
    allowed: bool = True,
    llama: dict[str, object] | None = None,
) -> list[Finding]:
    for file in files:
        (dev / file).parent.mkdir(parents=True, exist_ok=True)
        (dev / file).touch()
    probe = Probe({**CPU_ONLY, **(llama or {})}, nvml or {"driver": False, "gpus": []})
    return check_gpus(probe, dev=dev, system="linux", usable=lambda path: allowed)


def test_a_gpu_that_llama_cpp_uses_is_shown_with_its_memory(tmp_path: Path) -> None:
    [found] = gpus(tmp_path, "nvidia0", llama={"devices": [H200]})
    assert (found.level, found.text) == (Level.OK, "CUDA0: NVIDIA H200, 149.0 GB of 150.0 GB free")


def test_without_a_gpu_there_is_nothing_to_do(tmp_path: Path) -> None:
    [found] = gpus(tmp_path)
    assert (found.level, found.text, found.advice) == (Level.OK, "none: models are computed on the CPU", "")


def test_a_gpu_without_a_compiled_backend_names_the_flag_that_compiles_it(tmp_path: Path) -> None:
    [found] = gpus(tmp_path, "nvidia0", nvml={"driver": True, "gpus": ["NVIDIA H200"]})
    assert found.level is Level.WARN
    assert "NVIDIA H200" in found.text
    assert "compiled without CUDA" in found.text
    assert "-DGGML_CUDA=on" in found.advice


def test_a_backend_that_does_not_load_is_shown_with_the_reason(tmp_path: Path) -> None:
    reason = "libggml-cuda.so: libcublas.so.13: cannot open shared object file"
    [found] = gpus(tmp_path, nvml={"driver": True, "gpus": ["NVIDIA H200"]}, llama={"unloadable": [reason]})
    assert found.level is Level.WARN
    assert reason in found.text


def test_a_device_file_without_the_drivers_library_points_to_the_container_runtime(tmp_path: Path) -> None:
    [found] = gpus(tmp_path, "nvidia0")
    assert "libnvidia-ml.so.1 is not there" in found.text
    assert "--gpus all" in found.advice


def test_a_device_file_that_this_user_may_not_open_names_the_groups(tmp_path: Path) -> None:
    denied, unused = gpus(tmp_path, "dri/renderD128", allowed=False)
    assert denied.text == f"{tmp_path}/dri/renderD128 cannot be opened"
    assert "render" in denied.advice
    assert "-DGGML_VULKAN=on" in unused.advice


def test_a_gpu_of_amd_without_a_backend_names_the_flag(tmp_path: Path) -> None:
    [found] = gpus(tmp_path, "kfd", "dri/renderD128")
    assert "AMD" in found.text
    assert "-DGGML_VULKAN=on" in found.advice


@pytest.mark.parametrize(("machine", "level"), [("arm64", Level.WARN), ("x86_64", Level.OK)])
def test_a_mac_with_apple_silicon_has_a_metal_device(tmp_path: Path, machine: str, level: Level) -> None:
    [found] = check_gpus(Probe(CPU_ONLY), dev=tmp_path, system="darwin", machine=machine)
    assert found.level is level


def test_llama_cpp_that_does_not_load_is_a_failure_and_no_second_finding_about_gpus(tmp_path: Path) -> None:
    broken = Probe(problem="killed by SIGILL")
    assert check_llama(broken).level is Level.FAIL
    assert "compiled for another CPU" in check_llama(broken).advice
    assert check_gpus(broken, dev=tmp_path) == []


def child(code: str, *, timeout: float = 60.0) -> Probe:
    return run_probe({}, (sys.executable, "-c", code), timeout=timeout)


def test_a_child_that_is_killed_leaves_what_it_printed_before() -> None:
    code = """import os; print('[driver]'); print('{"nvml": {"driver": true}}', flush=True); os.kill(os.getpid(), 4)"""
    assert child(code) == Probe({}, {"driver": True}, "killed by SIGILL")


def test_a_child_that_fails_leaves_the_last_line_of_its_errors() -> None:
    assert child("raise ImportError('no llama')").problem == "ImportError: no llama"


def test_a_child_that_hangs_is_ended() -> None:
    assert child("import time; time.sleep(600)", timeout=0.5).problem == "it gave no answer in 0.5 s"


def test_a_missing_interpreter_is_a_problem(tmp_path: Path) -> None:
    assert "No such file" in run_probe({}, (str(tmp_path / "python"),)).problem
