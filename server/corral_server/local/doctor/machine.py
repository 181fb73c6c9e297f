"""Checks of the machine: memory, cores, disk space, and the compiler that llama-cpp-python is built with."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from corral_server.local.doctor.finding import Finding, fail, ok, warn
from corral_server.local.pulls.progress_text import size_text
from corral_server.system.cgroup_memory import ContainerMemory, container_memory
from corral_server.system.cores import available_cores
from corral_server.system.machine_memory import memory_for_runners

_LITTLE_MEMORY: Final = 2 * 10**9
_LITTLE_SPACE: Final = 5 * 10**9
_NO_SPACE: Final = 10**8
_COMPILERS: Final = ("c++", "g++", "clang++")


def check_memory(
    memory: Callable[[], int | None] = lambda: memory_for_runners([]),
    container: Callable[[], ContainerMemory | None] = container_memory,
) -> Finding:
    """Report the memory that is free for models."""
    free, limited = memory(), container()
    limit = f" (limit of the container: {size_text(limited.limit)})" if limited is not None else ""
    if free is None:
        return warn("memory", "it cannot be found out", "set OLLAMA_MAX_LOADED_MODELS: models are loaded without limit")
    if free < _LITTLE_MEMORY:
        return warn("memory", f"{size_text(free)} free{limit}", "choose models of less than 1 billion parameters")
    return ok("memory", f"{size_text(free)} free{limit}")


def check_cores(cores: Callable[[], int] = available_cores, total: int | None = os.cpu_count()) -> Finding:
    """Report the cores that runners use: those of the affinity and of the control group."""
    usable = cores()
    shown = f"{usable} of {total}" if total is not None and total > usable else str(usable)
    if usable < 2:
        return warn("CPU cores", shown, "give the container or the machine more cores; one is slow")
    return ok("CPU cores", shown)


def check_folder(check: str, folder: Path, *, free: Callable[[Path], int] | None = None) -> Finding:
    """Report whether a folder can be written, and its free space. Nothing is left behind."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            space = free(existing) if free is not None else shutil.disk_usage(existing).free
    except OSError as error:
        advice = "change the owner of the folder, or name another one in OLLAMA_MODELS or CORRAL_STATE_FOLDER"
        return fail(check, f"{folder} cannot be written: {error.strerror or error}", advice)
    text = f"{folder}, {size_text(space)} free"
    if space < _NO_SPACE:
        return fail(check, text, "free disk space: `corral cache ls` and `corral cache prune`")
    if space < _LITTLE_SPACE:
        return warn(check, text, "a model of 7 billion parameters takes 5 GB; `corral cache ls` lists what is pulled")
    return ok(check, text)


def check_compiler(which: Callable[[str], str | None] = shutil.which) -> Finding:
    """Report the programs with which llama-cpp-python is compiled at its installation."""
    compiler = next((found for name in _COMPILERS if (found := which(name))), None)
    if compiler is None:
        return ok("compiler", "none: it is needed only to install llama-cpp-python again, for example for a GPU")
    return ok("compiler", compiler)
