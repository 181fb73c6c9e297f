"""containerd and NVIDIA's container runtime of the tests' nodes, compiled once from Go modules into the user's cache.

Debian's containerd is older than 2.1, which image volumes need, and Debian has no NVIDIA container runtime. ``go.mod``
and ``go.sum`` in ``containerd/`` and ``nvidia_toolkit/`` pin every version. The programs are in
``$XDG_CACHE_HOME/corral/<folder>/<key>/`` (default ``~/.cache``), complete or not at all. The key covers both files and
the version of Go. A lock makes concurrent builds take turns.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.llama_wheel import cache_dir
from tests.cluster.tools import ToolsError

HERE: Final = Path(__file__).parent
_TIMEOUT: Final = 1800.0
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _GoPrograms:
    """Programs of one module. ``version``: the variable that holds its version, without ``v``.

    ``link``: flags of the system's linker; with them the programs are compiled with cgo.
    """

    folder: str
    module: str
    names: Sequence[str]
    version: str
    link: str = ""


_CONTAINERD: Final = _GoPrograms(
    "containerd",
    "github.com/containerd/containerd/v2",
    ("containerd", "containerd-shim-runc-v2", "ctr"),
    "version.Version",
)
_NVIDIA: Final = _GoPrograms(
    "nvidia_toolkit",
    "github.com/NVIDIA/nvidia-container-toolkit",
    ("nvidia-container-runtime",),
    "internal/info.version",
    link="-Wl,--export-dynamic -Wl,--unresolved-symbols=ignore-in-object-files -Wl,-z,lazy",  # as in its Makefile
)


def _silent(_line: str) -> None:
    return


def containerd_programs(report: Report = _silent) -> Path:
    """Return the folder with containerd, its shim and ctr; compile them first if necessary. Raises ToolsError."""
    return _compiled(_CONTAINERD, report)


def nvidia_runtime(report: Report = _silent) -> Path:
    """Return NVIDIA's container runtime; compile it first if necessary. Raises ToolsError."""
    return _compiled(_NVIDIA, report) / _NVIDIA.names[0]


def _compiled(programs: _GoPrograms, report: Report) -> Path:
    key = hashlib.sha256(_go(programs, "version").encode())
    for name in ("go.mod", "go.sum"):
        key.update((HERE / programs.folder / name).read_bytes())
    folder = cache_dir() / programs.folder / key.hexdigest()[:16]
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the process exits
        if not folder.exists():
            report(f"compiling {', '.join(programs.names)} (once; about a minute on two cores)")
            _build(programs, folder)
    return folder


def _build(programs: _GoPrograms, folder: Path) -> None:
    """Compile into a temporary folder and rename it."""
    for leftover in folder.parent.glob("build-*"):  # of a killed build: this process holds the lock
        shutil.rmtree(leftover, ignore_errors=True)
    version = _go(programs, "list", "-m", "-f", "{{.Version}}", programs.module).removeprefix("v")
    flags = f"-s -w -X {programs.module}/{programs.version}={version}"
    flags += f" '-extldflags={programs.link}'" if programs.link else ""
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder.parent) as work:
        packages = [f"{programs.module}/cmd/{name}" for name in programs.names]
        _go(programs, "build", "-trimpath", "-ldflags", flags, "-o", f"{work}/programs/", *packages)
        (Path(work) / "programs").rename(folder)


def _go(programs: _GoPrograms, *arguments: str) -> str:
    """Run the go command in the folder of the module, and return its standard output. Raises ToolsError."""
    try:
        done = subprocess.run(
            ["go", *arguments],
            cwd=HERE / programs.folder,
            env=os.environ | {"CGO_ENABLED": "1" if programs.link else "0"},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise ToolsError("Go is not installed (https://go.dev/dl)") from None
    except subprocess.TimeoutExpired:
        raise ToolsError(f"go {arguments[0]} took longer than {_TIMEOUT:.0f} s") from None
    if done.returncode != 0:
        raise ToolsError(f"go {arguments[0]} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return done.stdout.strip()
