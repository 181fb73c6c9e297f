"""Build Corral's wheel with the compiled gateway, as in the images, and print the folder into which it is unpacked.

An interpreter with that folder first on PYTHONPATH runs the compiled gateway, with the installed dependencies. The
folder is in the user's cache, keyed by a digest of everything that affects the build, and is reused. It is renamed into
place when it is complete; a second concurrent build waits for the first. A build takes about a minute.

Progress is written to standard error, the path to standard output.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.llama_wheel import cache_dir, locked, missing_tools  # noqa: E402  # a script's sys.path has only its own folder

_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "scripts/compile_hook.py")
_PACKAGES = ("operator", "server")
_KEPT = 3
"""Number of builds that stay in the cache."""


def folder() -> Path:
    """Return the folder of the unpacked wheel, after building it if needed. Raises SystemExit if the build fails."""
    kept = cache_dir() / "compiled"
    found = kept / _digest(ROOT)
    if not found.is_dir():
        with locked(kept, "waiting for another process that compiles the gateway"):
            found = found if found.is_dir() else _build(kept)
    os.utime(found)
    return found


def lacking() -> list[str]:
    """Return the names of the build requirements that this machine lacks."""
    tools = [tool for tool in missing_tools() if tool == "a C compiler"]
    headers = Path(sysconfig.get_path("include"), "Python.h").is_file()
    return tools if headers else [*tools, "Python's header files"]


def environment() -> dict[str, str]:
    """Return this process's environment, extended to run the compiled gateway."""
    return {**os.environ, "PYTHONPATH": str(folder()), "PYTHONDONTWRITEBYTECODE": "1"}


def _build(kept: Path) -> Path:
    """Build from a copy of the sources, so that concurrent edits cannot get into a build with another digest."""
    print("compiling the gateway (about a minute)", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=kept) as name:
        work = Path(name)
        sources, unpacked = work / "sources", work / "unpacked"
        for path in _files(ROOT):
            target = sources / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        found = kept / _digest(sources)
        with zipfile.ZipFile(_wheel(sources, work / "dist")) as wheel:
            wheel.extractall(unpacked)
        if not found.is_dir():
            unpacked.rename(found)
    _remove_old(kept)
    return found


def _wheel(sources: Path, into: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(into)]
    hook = os.environ | {"HATCH_BUILD_HOOK_ENABLE_CUSTOM": "1"}
    done = subprocess.run(command, cwd=sources, env=hook, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        output = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise SystemExit(f"the compiled wheel could not be built (it needs a C compiler):\n{output}")
    return next(into.glob("*.whl"))


def _remove_old(kept: Path) -> None:
    builds = sorted((path for path in kept.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in builds[:-_KEPT]:
        shutil.rmtree(path)


def _digest(root: Path) -> str:
    digest = hashlib.sha256()
    versions = (
        platform.python_version(),
        platform.machine(),
        platform.libc_ver()[1],
        importlib.metadata.version("mypy"),
    )
    digest.update(repr(versions).encode())
    for path in _files(root):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _files(root: Path) -> list[Path]:
    """Return the files from which the wheel is built."""
    found = [path for package in _PACKAGES for path in (root / package).rglob("*") if path.is_file()]
    return [root / name for name in _SOURCES] + sorted(path for path in found if path.suffix != ".pyc")


def main() -> None:
    print(folder())


if __name__ == "__main__":
    main()
