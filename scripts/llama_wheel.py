"""Builds llama-cpp-python's wheel once into the user's cache and prints the wheel's path.

llama-cpp-python ships only a source archive; compiling it takes minutes. The wheel is keyed by version, build flags and
machine, so every later set-up on the same machine takes it from the cache.

The flags, and why:

* ``GGML_NATIVE=OFF``: the wheel must run on another CPU than the one that compiled it.
* ``GGML_BACKEND_DL=ON``, ``GGML_CPU_ALL_VARIANTS=ON``: the CPU kernels are compiled once for each instruction set and
  the best one is loaded at run time, so portability costs no speed.
* ``LLAVA_BUILD=OFF``: no image encoder; nothing here calls it.

Progress goes to standard error, the path alone to standard output.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VERSION = "0.3.36"
FLAGS = (
    "-DGGML_NATIVE=OFF",
    "-DGGML_BACKEND_DL=ON",
    "-DGGML_CPU_ALL_VARIANTS=ON",
    "-DLLAVA_BUILD=OFF",
)
_STEP = re.compile(r"\[(\d+)/(\d+)\]")


def cache_dir() -> Path:
    """The user's cache folder of this project, after the XDG base directory specification."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "corral"


def wheel_dir() -> Path:
    """Where this version with these flags belongs for this machine."""
    key = " ".join((VERSION, *FLAGS, platform.system(), platform.machine(), platform.libc_ver()[1]))
    return cache_dir() / "wheels" / f"llama-cpp-python-{VERSION}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def cached_wheel() -> Path | None:
    return next(wheel_dir().glob("llama_cpp_python-*.whl"), None)


def build(work: Path) -> Path:
    """Compiles the wheel in ``work`` and moves it into the cache in one step.

    Raises SystemExit with the compiler's last lines when the build fails.
    """
    environment = os.environ | {
        "CMAKE_ARGS": " ".join(FLAGS),
        "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1),
        "FORCE_CMAKE": "1",
    }
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-cache-dir"]
    command += ["--no-binary", "llama-cpp-python", "--wheel-dir", str(work), f"llama-cpp-python=={VERSION}"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    tail = _show_progress(process)
    if process.wait() != 0:
        raise SystemExit("llama-cpp-python did not compile. The last lines were:\n" + "\n".join(tail))
    wheel = next(work.glob("llama_cpp_python-*.whl"))
    target = wheel_dir() / wheel.name
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}.partial")
    shutil.move(wheel, partial)
    partial.rename(target)
    return target


def _show_progress(process: subprocess.Popen[str]) -> list[str]:
    """Prints the compiler's step count as it grows; returns the last lines of the output."""
    assert process.stdout is not None
    tail: list[str] = []
    start, shown = time.monotonic(), -1
    for line in process.stdout:
        tail = [*tail[-30:], line.rstrip()]
        step = _STEP.search(line)
        if step is None:
            continue
        percent = 100 * int(step[1]) // int(step[2])
        if percent // 2 != shown // 2:
            shown = percent
            minutes, seconds = divmod(int(time.monotonic() - start), 60)
            print(f"  compiling llama.cpp: {percent:3d} %  ({minutes}:{seconds:02d})", file=sys.stderr, flush=True)
    return tail


def main() -> None:
    wheel = cached_wheel()
    if wheel is None:
        print(f"llama-cpp-python {VERSION} is compiled once for this machine (about ten minutes).", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="corral-wheel-") as work:
            wheel = build(Path(work))
    print(wheel)


if __name__ == "__main__":
    main()
