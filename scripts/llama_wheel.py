"""Builds llama-cpp-python's wheel once into the user's cache and prints the path of the wheel.

usage: llama_wheel.py [--portable | --requirement]

llama-cpp-python is published as source only, and compiling it takes minutes. Without options the wheel is compiled for
the CPU of this machine, which is enough to serve models from a checkout. ``--portable`` compiles the CPU kernels once
per instruction set, and llama.cpp chooses among them at run time: the images ship that wheel, and the tests run it. The
cache is keyed by version, build flags and machine (the native wheel by CPU features too). If two set-ups run at once,
one compiles and the other waits. A wheel is moved into the cache by rename, so the cache never holds a partial file.

Build flags:

* ``GGML_NATIVE=ON``: kernels for this CPU only, built into the library; ``GGML_BACKEND_DL`` excludes it.
* ``GGML_NATIVE=OFF``, ``GGML_BACKEND_DL=ON``, ``GGML_CPU_ALL_VARIANTS=ON``: the portable wheel. Measured: within 3 % of
  a native build.
* ``LLAVA_BUILD=ON``: with libmtmd, which encodes images; ``MTMD_VIDEO=OFF``: it never starts ffmpeg.

CMake includes ``PROJECT_INCLUDE`` in llama.cpp's own project, after llama-cpp-python's CMakeLists.txt has set options:

* llama.cpp's ``common`` library is left out, because the Python bindings do not load it.
* On CPUs with AMX, GCC 12 drops the stores to the tile configuration, because the inline assembly of its
  ``_tile_loadconfig`` declares only the first 8 bytes of the operand as read (``amxtileintrin.h``). The first matrix
  product then ends the process by SIGILL. A memory barrier before the call in ggml's ``amx/mmq.cpp`` keeps the stores.

The source and the build tools are checked against the hashes in ``requirements/``.

Progress goes to standard error; standard output has the path alone.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

SHARED_FLAGS = ("-DLLAVA_BUILD=ON", "-DMTMD_VIDEO=OFF")
NATIVE_FLAGS = ("-DGGML_NATIVE=ON",)
PORTABLE_FLAGS = ("-DGGML_NATIVE=OFF", "-DGGML_BACKEND_DL=ON", "-DGGML_CPU_ALL_VARIANTS=ON")
PROJECT_INCLUDE = """\
set(LLAMA_BUILD_COMMON OFF)
set(amx_source "${CMAKE_CURRENT_SOURCE_DIR}/ggml/src/ggml-cpu/amx/mmq.cpp")
file(READ "${amx_source}" text)
string(REPLACE
    "_tile_loadconfig(&tc);"
    "__asm__ volatile(\\"\\" : : \\"r\\"(&tc) : \\"memory\\"); _tile_loadconfig(&tc);"
    text "${text}")
file(WRITE "${amx_source}" "${text}")
"""
_ROOT = Path(__file__).resolve().parent.parent
_PYPROJECT = _ROOT / "pyproject.toml"
SOURCE = _ROOT / "requirements" / "llama-cpp-python.txt"
"""The source distribution, with its hash."""
_BUILD_TOOLS = _ROOT / "requirements" / "llama.txt"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
_STEP = re.compile(r"\[(\d+)/(\d+)\]")
_TAIL = 40


def version() -> str:
    """Return the version that pyproject.toml pins."""
    extras = tomllib.loads(_PYPROJECT.read_text())["project"]["optional-dependencies"]
    pins = [found[1] for line in extras["runner"] if (found := re.fullmatch(r"llama-cpp-python==([\w.]+)", line))]
    if len(pins) != 1:
        raise SystemExit(f"{_PYPROJECT} must pin llama-cpp-python with == in the extra 'runner'")
    return pins[0]


def flags(*, portable: bool = False) -> tuple[str, ...]:
    """Return the build flags: ours, then the user's CMAKE_ARGS, which override ours (a GPU backend, for instance)."""
    cpu = PORTABLE_FLAGS if portable else NATIVE_FLAGS
    return (*cpu, *SHARED_FLAGS, *os.environ.get("CMAKE_ARGS", "").split())


def cache_dir() -> Path:
    """Return this project's folder in the user's cache (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "corral"


def wheel_dir(*, portable: bool = False) -> Path:
    """Return the cache folder of this version, these flags and this machine."""
    parts = [version(), *flags(portable=portable), PROJECT_INCLUDE]
    parts += [platform.system(), platform.machine(), platform.libc_ver()[1]]
    if not portable:
        parts.append(_cpu_features())
    digest = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]
    return cache_dir() / "wheels" / f"llama-cpp-python-{version()}-{digest}"


def _cpu_features() -> str:
    """Return the CPU's instruction set extensions, so that a home shared by machines never offers a foreign wheel."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def cached_wheel(*, portable: bool = False) -> Path | None:
    return next(wheel_dir(portable=portable).glob("llama_cpp_python-*.whl"), None)


def missing_tools() -> list[str]:
    """Return the names of the build tools that PATH lacks."""
    compilers = {
        "a C compiler": [os.environ.get("CC", "").split(" ")[0], "cc", "gcc", "clang"],
        "a C++ compiler": [os.environ.get("CXX", "").split(" ")[0], "c++", "g++", "clang++"],
        "cmake": ["cmake"],
    }
    return [what for what, programs in compilers.items() if not any(map(shutil.which, filter(None, programs)))]


@contextlib.contextmanager
def locked(folder: Path, waiting: str = "another set-up is compiling llama.cpp: waiting for it") -> Iterator[None]:
    """Hold the folder's lock; the operating system releases it however this process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(waiting)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(work: Path, *, portable: bool) -> Path:
    """Compile the wheel in ``work`` and rename it into the cache.

    Raises SystemExit with the compiler's last lines when the build fails.
    """
    project_include = work / "project_include.cmake"
    project_include.write_text(PROJECT_INCLUDE)
    environment = build_environment(work) | {
        "CMAKE_ARGS": " ".join([*flags(portable=portable), f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={project_include}"]),
        "FORCE_CMAKE": "1",
    }
    command = [*PIP, "wheel", "-v", "--no-deps", "--no-cache-dir", "--require-hashes", "--no-build-isolation"]
    command += ["--no-binary", "llama-cpp-python", "--wheel-dir", str(work), "-r", str(SOURCE)]
    compile_with(command, environment, what="llama-cpp-python")
    wheel = next(work.glob("llama_cpp_python-*.whl"))
    return keep(wheel, wheel_dir(portable=portable) / wheel.name)


def compile_with(command: Sequence[str], environment: Mapping[str, str], *, what: str) -> None:
    """Run a compilation and show its progress. Raises SystemExit with its last lines when it fails."""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        tail = _show_progress(process)
    if process.returncode != 0:
        raise SystemExit(f"{what} did not compile. The last lines were:\n" + "\n".join(tail))


def keep(built: Path, target: Path) -> Path:
    """Move a file into the cache by rename; return ``target``."""
    partial = target.with_suffix(".partial")
    shutil.move(built, partial)
    partial.rename(target)
    return target


def build_environment(work: Path) -> dict[str, str]:
    """Return an environment with the build backend of llama-cpp-python, which is installed into a folder of ``work``.

    pip checks no hashes of what an isolated build installs.
    """
    tools = work / "tools"
    command = [*PIP, "install", "--quiet", "--require-hashes", "--only-binary", ":all:", "--target", str(tools)]
    if subprocess.run([*command, "-r", str(_BUILD_TOOLS)], check=False).returncode != 0:
        raise SystemExit("the build tools of llama-cpp-python cannot be installed; pip's message above says why")
    return os.environ | {
        "PATH": f"{tools / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(tools),
        "CMAKE_BUILD_PARALLEL_LEVEL": os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count() or 1),
    }


def _show_progress(process: subprocess.Popen[str]) -> list[str]:
    """Print the compiler's step count as it grows; return the last lines of the output."""
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
            say(f"  compiling llama.cpp: {percent:3d} %  ({minutes}:{seconds:02d})")
    return tail


def say(text: str) -> None:
    """Print to standard error."""
    print(text, file=sys.stderr, flush=True)


def wheel(*, portable: bool = False) -> Path:
    """Return the wheel's path; compile it if the cache lacks it. Raises SystemExit that says what to do."""
    if found := cached_wheel(portable=portable):
        return found
    with locked(wheel_dir(portable=portable)):
        if found := cached_wheel(portable=portable):
            return found
        if missing := missing_tools():
            raise SystemExit(
                f"llama-cpp-python must be compiled, and this machine lacks {', '.join(missing)}.\n"
                "On Debian or Ubuntu: apt-get install build-essential cmake. On macOS: xcode-select --install, brew "
                "install cmake."
            )
        kind, minutes = ("every CPU", "ten") if portable else ("this machine", "three")
        say(f"compiling llama-cpp-python {version()} for {kind}, once (about {minutes} minutes on two cores)")
        with tempfile.TemporaryDirectory(prefix="corral-wheel-") as work:
            return build(Path(work), portable=portable)


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds llama-cpp-python's wheel once and prints its path.")
    parser.add_argument("--portable", action="store_true", help="with kernels for every CPU, as in the images")
    parser.add_argument("--requirement", action="store_true", help="print only the pinned requirement")
    options = parser.parse_args()
    print(f"llama-cpp-python=={version()}" if options.requirement else wheel(portable=options.portable))


if __name__ == "__main__":
    main()
