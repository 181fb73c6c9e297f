"""Checks of llama.cpp and of the GPUs: which are used, and why the others are not."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from corral_core.base.json_fields import JsonObject
from corral_server.local.doctor.finding import Finding, fail, ok, warn
from corral_server.local.doctor.probe import Probe
from corral_server.local.pulls.progress_text import size_text

DEV: Final = Path("/dev")
_REINSTALL: Final = "install llama-cpp-python again: pip install --force-reinstall --no-cache-dir llama-cpp-python"
_GPU_FLAGS: Final = (
    "compile llama-cpp-python for the GPU: CMAKE_ARGS=-DGGML_{backend}=on pip install --force-reinstall "
    "--no-cache-dir llama-cpp-python, or name a folder with ggml's backends in CORRAL_LLAMA_BACKENDS"
)


def check_llama(probe: Probe) -> Finding:
    """Report whether llama.cpp loads and which kernels of the CPU it uses."""
    if not probe.llama:
        advice = _REINSTALL
        if "SIGILL" in probe.problem:
            advice = f"the wheel was compiled for another CPU; {_REINSTALL}"
        return fail("llama.cpp", f"it does not load: {probe.problem or 'no output'}", advice)
    version, kernels = probe.llama.get("version"), probe.llama.get("cpu_backend")
    return ok("llama.cpp", f"llama-cpp-python {version}, CPU kernels: {kernels}")


def check_gpus(
    probe: Probe,
    *,
    dev: Path = DEV,
    system: str = sys.platform,
    machine: str = "",
    usable: Callable[[Path], bool] = lambda path: os.access(path, os.R_OK | os.W_OK),
) -> list[Finding]:
    """Report each GPU that llama.cpp uses, or why it uses none."""
    devices = _objects(probe.llama.get("devices"))
    if devices:
        return [ok("GPU", _device_text(each)) for each in devices]
    if not probe.llama:
        return []  # the finding about llama.cpp says why
    if system == "darwin":
        return [_check_metal(machine or platform.machine())]
    found = [*_denied(dev, usable), *_unloadable(probe), *_unused(probe, dev)]
    return found or [ok("GPU", "none: models are computed on the CPU")]


def _check_metal(machine: str) -> Finding:
    if machine == "arm64":
        return warn("GPU", "llama.cpp has no Metal device", _GPU_FLAGS.format(backend="METAL"))
    return ok("GPU", "none that llama.cpp uses: models are computed on the CPU")


def _denied(dev: Path, usable: Callable[[Path], bool]) -> Iterator[Finding]:
    """Yield the device files of GPUs that this user may not open."""
    for path in _device_files(dev):
        if not usable(path):
            group = "the groups render and video" if "nvidia" not in path.name else "the group of that file"
            yield warn("GPU", f"{path} cannot be opened", f"add the user to {group} (usermod -aG), and log in again")


def _device_files(dev: Path) -> list[Path]:
    patterns = ("nvidiactl", "nvidia[0-9]*", "kfd", "dri/renderD*")
    return [path for pattern in patterns for path in sorted(dev.glob(pattern))]


def _unloadable(probe: Probe) -> Iterator[Finding]:
    reasons = probe.llama.get("unloadable")
    for reason in reasons if isinstance(reasons, list) else ():
        yield warn("GPU", f"a backend of llama.cpp does not load: {reason}", "install the library that it names")


def _unused(probe: Probe, dev: Path) -> Iterator[Finding]:
    """Yield the GPUs that are there and that llama.cpp has no backend for."""
    gpus = probe.nvml.get("gpus")
    names = [str(name) for name in gpus] if isinstance(gpus, list) else []
    nvidia = sorted(dev.glob("nvidia[0-9]*"))
    if names and not probe.llama.get("unloadable"):
        text = f"NVIDIA's driver has {', '.join(names)}, but llama.cpp was compiled without CUDA"
        yield warn("GPU", text, _GPU_FLAGS.format(backend="CUDA"))
    elif nvidia and not names:
        advice = "install NVIDIA's driver; in a container start it with --gpus all (NVIDIA Container Toolkit)"
        text = "is not there" if not probe.nvml.get("driver") else "reports no GPU"
        yield warn("GPU", f"{nvidia[0]} exists, but the driver's library libnvidia-ml.so.1 {text}", advice)
    if not names and not nvidia and (dev / "kfd").exists():
        text = f"{dev / 'kfd'} is a GPU of AMD, but llama.cpp was compiled without ROCm and Vulkan"
        yield warn("GPU", text, _GPU_FLAGS.format(backend="VULKAN"))
    elif not names and not nvidia and (render := sorted(dev.glob("dri/renderD*"))):
        text = f"{render[0]} is a GPU, but llama.cpp has no backend that uses it"
        yield warn("GPU", text, _GPU_FLAGS.format(backend="VULKAN"))


def _device_text(device: JsonObject) -> str:
    sizes = [size_text(float(str(device.get(key) or 0))) for key in ("free", "total")]
    return f"{device.get('name')}: {device.get('description')}, {sizes[0]} of {sizes[1]} free"


def _objects(value: object) -> list[JsonObject]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
