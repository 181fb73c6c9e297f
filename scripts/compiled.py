"""Builds Corral's wheel with the gateway compiled, as the images have it, and prints the folder that it is unpacked in.

With that folder first on PYTHONPATH an interpreter runs the compiled gateway, with whatever else is installed for it.
The folder is in the user's cache and keyed by all that goes into it, so a later call with the same sources takes it
from there. It is moved there whole; of two builds at once one works and the other waits. Building takes a minute.

Progress goes to standard error, the path alone to standard output.
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

from scripts.llama_wheel import cache_dir, locked, missing_tools  # noqa: E402  # started as a file, Python looks beside it only

_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "scripts/compile_hook.py")
_PACKAGES = ("operator", "server")
_KEPT = 3
"""Builds that stay in the cache."""


def folder() -> Path:
    """Where the unpacked wheel is; builds it when the cache lacks it. Raises SystemExit when it does not compile."""
    kept = cache_dir() / "compiled"
    found = kept / _digest(ROOT)
    if not found.is_dir():
        with locked(kept, "another process compiles the gateway: waiting for it"):
            found = found if found.is_dir() else _build(kept)
    os.utime(found)
    return found


def lacking() -> list[str]:
    """What the build needs and this machine has not, in words."""
    tools = [tool for tool in missing_tools() if tool == "a C compiler"]
    headers = Path(sysconfig.get_path("include"), "Python.h").is_file()
    return tools if headers else [*tools, "Python's header files"]


def environment() -> dict[str, str]:
    """This process' environment, for a Python that shall run the compiled gateway."""
    return {**os.environ, "PYTHONPATH": str(folder()), "PYTHONDONTWRITEBYTECODE": "1"}


def _build(kept: Path) -> Path:
    """From a copy of the sources, so that what is edited meanwhile is not taken for what was built."""
    print("the gateway is compiled (about a minute)", file=sys.stderr, flush=True)
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
    _forget_old(kept)
    return found


def _wheel(sources: Path, into: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(into)]
    hook = os.environ | {"HATCH_BUILD_HOOK_ENABLE_CUSTOM": "1"}
    done = subprocess.run(command, cwd=sources, env=hook, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise SystemExit(f"the compiled wheel could not be built (it needs a C compiler):\n{said}")
    return next(into.glob("*.whl"))


def _forget_old(kept: Path) -> None:
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
    """All that goes into the wheel."""
    found = [path for package in _PACKAGES for path in (root / package).rglob("*") if path.is_file()]
    return [root / name for name in _SOURCES] + sorted(path for path in found if path.suffix != ".pyc")


def main() -> None:
    print(folder())


if __name__ == "__main__":
    main()
