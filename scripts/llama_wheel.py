"""Builds llama-cpp-python's wheel once into the user's cache and prints the wheel's path.

llama-cpp-python ships only a source archive; compiling it takes minutes. The wheel is keyed by version, build flags and
machine, so every later set-up on the same machine takes it from the cache. Of two set-ups at once, one compiles and the
other waits for it. A wheel is moved into the cache whole, so what is there is never half written.

The flags, and why:

* ``GGML_NATIVE=OFF``: the wheel must run on another CPU than the one that compiled it.
* ``GGML_BACKEND_DL=ON``, ``GGML_CPU_ALL_VARIANTS=ON``: the CPU kernels are compiled once for each instruction set and
  the best one is loaded at run time, so portability costs no speed.
* ``LLAVA_BUILD=OFF``: no image encoder; nothing here calls it.

Progress goes to standard error, the path alone to standard output.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

FLAGS = (
    "-DGGML_NATIVE=OFF",
    "-DGGML_BACKEND_DL=ON",
    "-DGGML_CPU_ALL_VARIANTS=ON",
    "-DLLAVA_BUILD=OFF",
)
_PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
_STEP = re.compile(r"\[(\d+)/(\d+)\]")
_TAIL = 40


def version() -> str:
    """The version that pyproject.toml pins."""
    extras = tomllib.loads(_PYPROJECT.read_text())["project"]["optional-dependencies"]
    pins = [found[1] for line in extras["runner"] if (found := re.fullmatch(r"llama-cpp-python==([\w.]+)", line))]
    if len(pins) != 1:
        raise SystemExit(f"{_PYPROJECT} must pin llama-cpp-python with == in the extra 'runner'")
    return pins[0]


def flags() -> tuple[str, ...]:
    """The build flags: ours, then the user's own CMAKE_ARGS, which win (a GPU backend, for instance)."""
    return (*FLAGS, *os.environ.get("CMAKE_ARGS", "").split())


def cache_dir() -> Path:
    """The user's cache folder of this project, after the XDG base directory specification."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "corral"


def wheel_dir() -> Path:
    """Where this version with these flags belongs for this machine."""
    key = " ".join((version(), *flags(), platform.system(), platform.machine(), platform.libc_ver()[1]))
    return cache_dir() / "wheels" / f"llama-cpp-python-{version()}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def cached_wheel() -> Path | None:
    return next(wheel_dir().glob("llama_cpp_python-*.whl"), None)


def missing_tools() -> list[str]:
    """What the compilation needs and PATH lacks, in words."""
    compilers = {
        "a C compiler": [os.environ.get("CC", "").split(" ")[0], "cc", "gcc", "clang"],
        "a C++ compiler": [os.environ.get("CXX", "").split(" ")[0], "c++", "g++", "clang++"],
        "cmake": ["cmake"],
    }
    return [what for what, programs in compilers.items() if not any(map(shutil.which, filter(None, programs)))]


@contextlib.contextmanager
def locked(folder: Path, waiting: str = "another set-up is compiling llama.cpp: waiting for it") -> Iterator[None]:
    """Holds the folder's lock; the operating system gives it back whatever ends this process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(waiting)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(work: Path) -> Path:
    """Compiles the wheel in ``work`` and moves it into the cache in one step.

    Raises SystemExit with the compiler's last lines when the build fails.
    """
    environment = os.environ | {
        "CMAKE_ARGS": " ".join(flags()),
        "CMAKE_BUILD_PARALLEL_LEVEL": os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count() or 1),
        "FORCE_CMAKE": "1",
    }
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-cache-dir"]
    command += ["--no-binary", "llama-cpp-python", "--wheel-dir", str(work), f"llama-cpp-python=={version()}"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        tail = _show_progress(process)
    if process.returncode != 0:
        raise SystemExit("llama-cpp-python did not compile. The last lines were:\n" + "\n".join(tail))
    wheel = next(work.glob("llama_cpp_python-*.whl"))
    target = wheel_dir() / wheel.name
    partial = target.with_suffix(".partial")
    shutil.move(wheel, partial)
    partial.rename(target)
    return target


def _show_progress(process: subprocess.Popen[str]) -> list[str]:
    """Prints the compiler's step count as it grows; returns the last lines of the output."""
    assert process.stdout is not None
    tail: list[str] = []
    start, shown = time.monotonic(), -1
    for line in process.stdout:
        tail = [*tail[1 - _TAIL :], line.rstrip()]
        step = _STEP.search(line)
        if step is None:
            continue
        percent = 100 * int(step[1]) // int(step[2])
        if percent // 2 != shown // 2:
            shown = percent
            minutes, seconds = divmod(int(time.monotonic() - start), 60)
            _say(f"  compiling llama.cpp: {percent:3d} %  ({minutes}:{seconds:02d})")
    return tail


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def wheel() -> Path:
    """The wheel's path; compiles it when the cache lacks it. Raises SystemExit with what to do when it cannot."""
    if found := cached_wheel():
        return found
    with locked(wheel_dir()):
        if found := cached_wheel():
            return found
        if missing := missing_tools():
            raise SystemExit(
                f"llama-cpp-python must be compiled, and this machine lacks {', '.join(missing)}.\n"
                "On Debian or Ubuntu: apt-get install build-essential cmake. On macOS: xcode-select --install, brew "
                "install cmake."
            )
        _say(f"llama-cpp-python {version()} is compiled once for this machine (about ten minutes on two cores)")
        with tempfile.TemporaryDirectory(prefix="corral-wheel-") as work:
            return build(Path(work))


def main() -> None:
    print(wheel())


if __name__ == "__main__":
    main()
