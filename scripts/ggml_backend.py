"""A backend library of llama.cpp, compiled once into the user's cache beside the wheel of llama-cpp-python.

It is compiled from the source that the wheel is compiled from (``llama_wheel.py``), so it fits the wheel's ``libggml``,
which loads it from the folder of the CPU backends (``CORRAL_LLAMA_BACKENDS``). The cache is keyed by version, build
flags and machine. If two set-ups run at once, one compiles and the other waits.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import llama_wheel  # a script's sys.path has only its own folder

COMMON = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DCMAKE_SKIP_RPATH=ON",
    "-DGGML_NATIVE=OFF",
    "-DGGML_BACKEND_DL=ON",
    "-DGGML_CPU=OFF",
)
"""Flags of every backend; the portable wheel has the same ``GGML_NATIVE`` and ``GGML_BACKEND_DL``."""

LEFT_OUT = (
    "-DGGML_CCACHE=OFF",
    "-DLLAMA_BUILD_COMMON=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_TOOLS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
)
"""Flags of every backend for what is not built."""


@dataclass(frozen=True, slots=True)
class Backend:
    """A backend by its name in ggml's targets (``ggml-<name>``).

    ``flags`` are its own build flags. ``prepare`` puts what the compilation needs into a working folder, and returns
    the flags that name it, which are no part of the cache's key, and the variables of the environment.
    """

    name: str
    flags: tuple[str, ...]
    prepare: Callable[[Path], tuple[tuple[str, ...], Mapping[str, str]]]

    @property
    def all_flags(self) -> tuple[str, ...]:
        return (*COMMON, *self.flags, *LEFT_OUT)

    @property
    def library(self) -> Path:
        """The path in the cache of this version, these flags and this machine."""
        parts = [llama_wheel.version(), *self.all_flags]
        parts += [platform.system(), platform.machine(), platform.libc_ver()[1]]
        digest = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]
        folder = f"ggml-{self.name}-{llama_wheel.version()}-{digest}"
        return llama_wheel.cache_dir() / self.name / folder / f"libggml-{self.name}.so"

    def provide(self, *, missing: Callable[[], list[str]], packages: str, duration: str) -> Path:
        """Return the library; compile it if the cache lacks it, which takes ``duration`` on two cores.

        ``missing`` returns what the machine lacks, and ``packages`` are Debian's that have it. Raises SystemExit that
        says what to do.
        """
        target = self.library
        if target.is_file():
            return target
        with llama_wheel.locked(target.parent, f"another set-up is compiling ggml-{self.name}: waiting for it"):
            if target.is_file():
                return target
            if lacking := [*llama_wheel.missing_tools(), *missing()]:
                raise SystemExit(
                    f"ggml-{self.name} must be compiled, and this machine lacks {', '.join(lacking)}.\n"
                    f"On Debian or Ubuntu: apt-get install build-essential cmake {packages}"
                )
            llama_wheel.say(f"compiling llama.cpp's backend {self.name} once, which takes {duration} on two cores")
            with tempfile.TemporaryDirectory(prefix=f"corral-{self.name}-") as work:
                return llama_wheel.keep(self._build(Path(work)), target)

    def _build(self, work: Path) -> Path:
        """Compile in ``work``. Raises SystemExit with the compiler's last lines when the build fails."""
        environment = llama_wheel.build_environment(work)
        source, build = _source(work, environment), work / "build"
        places, variables = self.prepare(work)
        environment |= variables
        configure = ["cmake", "-S", str(source), "-B", str(build), "-G", "Ninja", *self.all_flags, *places]
        for command in (configure, ["cmake", "--build", str(build), "--target", f"ggml-{self.name}"]):
            llama_wheel.compile_with(command, environment, what=f"ggml-{self.name}")
        library = next(build.rglob(self.library.name))
        subprocess.run(["strip", "--strip-unneeded", str(library)], check=True)
        return library


def _source(work: Path, environment: Mapping[str, str]) -> Path:
    """Download the source distribution and unpack it; return llama.cpp's folder in it."""
    command = [*llama_wheel.PIP, "download", "--quiet", "--no-deps", "--require-hashes", "--no-build-isolation"]
    command += ["--no-binary", "llama-cpp-python", "--dest", str(work), "-r", str(llama_wheel.SOURCE)]
    if subprocess.run(command, env=environment, check=False).returncode != 0:
        raise SystemExit("the source of llama-cpp-python cannot be downloaded; pip's message above says why")
    with tarfile.open(next(work.glob("llama_cpp_python-*.tar.gz"))) as archive:
        archive.extractall(work, filter="data")
    return next(work.glob("llama_cpp_python-*/vendor/llama.cpp"))
