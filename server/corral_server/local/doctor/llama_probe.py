"""Child process of ``corral doctor``: prints what llama.cpp and NVML find, as one JSON object for each.

A process of its own, since a library that was compiled for another CPU ends its process by a signal.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Mapping


def llama_facts() -> Mapping[str, object]:
    """Return the version, the CPU backend and the GPUs of llama.cpp. Raises LoadFailed, ImportError and OSError."""
    from corral_server.runner.llama import devices, library  # loads the shared libraries

    cpu_backend = library.initialize()
    found = [
        {"name": each.name, "description": each.description, "total": each.total, "free": each.free}
        for each in devices.gpu_devices()
    ]
    return {
        "version": importlib.metadata.version("llama-cpp-python"),
        "cpu_backend": cpu_backend,
        "devices": found,
        "unloadable": library.unloadable_backends(),
    }


def nvml_facts() -> Mapping[str, object]:
    """Return the GPUs of NVIDIA's driver."""
    from corral_server.system.nvml import Nvml

    session = Nvml.open()
    if session is None:
        return {"driver": False, "gpus": []}
    try:
        return {"driver": True, "gpus": [reading.device.name for reading in session.readings()]}
    finally:
        session.close()


def main() -> None:
    facts: Mapping[str, Callable[[], Mapping[str, object]]] = {"nvml": nvml_facts, "llama": llama_facts}
    for name, read in facts.items():
        print(json.dumps({name: read()}), flush=True)


if __name__ == "__main__":
    main()
