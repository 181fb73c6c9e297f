"""What macOS lacks or names differently, with the functions of Linux taken away. No Mac runs these tests."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from corral_server.runner.llama.errors import LoadFailed
from corral_server.runner.llama.library import library_file
from corral_server.system import macos_memory
from corral_server.system.cores import available_cores
from corral_server.system.machine_memory import memory_for_runners

IMPORT_ALL = """
import asyncio, concurrent.futures.process, httpx, importlib, multiprocessing, ollama, os, pkgutil, psutil, resource
import signal, socket, sys, uvicorn, uvloop, watchfiles, obstore, numpy, jinja2, llguidance
for module, names in {
    os: "sched_getaffinity memfd_create eventfd pidfd_open posix_fadvise O_DIRECT O_TMPFILE splice getrandom pipe2",
    socket: "TCP_KEEPIDLE TCP_USER_TIMEOUT TCP_INFO TCP_DEFER_ACCEPT SO_PEERCRED",
    signal: "sigtimedwait SIGRTMIN SIGSTKFLT SIGPOLL",
    resource: "prlimit RLIMIT_RTPRIO",
}.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
socket.TCP_KEEPALIVE = 16
sys.platform = "darwin"
import corral_server
found = [module.name for module in pkgutil.walk_packages(corral_server.__path__, "corral_server.")]
parts = tuple(f"corral_server.{part}" for part in ("local", "pull", "runner", "system", "wire"))
imported = [name for name in found if name.startswith(parts) and not name.endswith("__main__")]
for name in imported:
    importlib.import_module(name)
from corral_server.gateway.upstream import tcp
print(len(imported), tcp._KEEPIDLE)
"""


@pytest.mark.process
def test_every_module_of_local_mode_is_imported_without_the_functions_of_linux() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, timeout=120, check=False, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    count, option = done.stdout.split()
    assert int(count) > 150
    assert option == "16"


@pytest.mark.parametrize("name", ["libggml.so.0", "libggml.so", "libggml.0.dylib", "libggml.dylib"])
def test_the_library_is_found_by_the_name_of_either_system(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert library_file(tmp_path) == tmp_path / name


def test_a_folder_without_the_library_is_reported(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"libggml\.dylib"):
        library_file(tmp_path)


@dataclass(frozen=True)
class _VirtualMemory:
    total: int
    available: int


def test_the_memory_of_a_mac_is_what_is_available_and_what_runners_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: _VirtualMemory(total=1000, available=400))
    sizes = {7: 100, 8: 50}
    assert macos_memory.memory_for_runners([7, 8], resident=lambda pid: sizes[pid]) == 550
    assert macos_memory.memory_for_runners([7], resident=lambda pid: 900) == 1000
    assert memory_for_runners([], system="darwin") == 400


def test_the_resident_memory_of_a_process_is_read_and_an_ended_one_has_none() -> None:
    assert macos_memory.resident_memory(os.getpid()) > 2**20
    assert macos_memory.resident_memory(2**30) == 0


def test_without_an_affinity_all_cores_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert available_cores(tmp_path, tmp_path / "none") == 8
