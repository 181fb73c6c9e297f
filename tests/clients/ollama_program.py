"""The ``ollama`` command, compiled once from its Go module into the user's cache.

Its path is ``$XDG_CACHE_HOME/corral/ollama/<version>-<key>/`` (default ``~/.cache``); the key includes Go's version.
The build is published by rename, and concurrent builds are serialized by a lock. It needs cgo and therefore a C++
compiler.

``python -m tests.clients.ollama_program`` builds it and prints where it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

VERSION = "v0.34.2"
MODULE = "github.com/ollama/ollama"
_BUILD_TIMEOUT = 3600.0
_GO_TIMEOUT = 60.0
Report = Callable[[str], None]


class ProgramError(Exception):
    """The command cannot be built on this machine; the text is one line that names what is missing."""


def program(report: Report | None = None) -> Path:
    """Return the path of the command; build it first if necessary. Raises ProgramError."""
    folder = _folder()
    built = folder / "ollama"
    if built.exists():
        return built
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the process exits
        if not built.exists():
            (report or (lambda line: None))(f"compiling ollama {VERSION} (once; about two minutes on two cores)")
            _build(built)
    return built


def _folder() -> Path:
    for needed, what in (("go", "Go is not installed (https://go.dev/dl)"), ("g++", "g++ is not installed")):
        if shutil.which(needed) is None:
            raise ProgramError(what)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    key = hashlib.sha256(_go("version", timeout=_GO_TIMEOUT).encode()).hexdigest()[:16]
    return Path(base) / "corral" / "ollama" / f"{VERSION.replace('.', '_')}-{key}"


def _build(built: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="build-", dir=built.parent) as work:
        _go("install", f"{MODULE}@{VERSION}", timeout=_BUILD_TIMEOUT, GOBIN=work, CGO_ENABLED="1")
        (Path(work) / "ollama").replace(built)


def _go(*arguments: str, timeout: float, **environment: str) -> str:
    """Return the standard output of the go command. Raises ProgramError."""
    try:
        done = subprocess.run(
            ["go", *arguments],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProgramError(f"go {arguments[0]} did not end within {timeout:.0f} s") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ProgramError(f"go {arguments[0]} failed: {last}")
    return done.stdout


def main() -> None:
    try:
        print(program(lambda line: print(f"  {line}", file=sys.stderr, flush=True)))
    except ProgramError as error:
        raise SystemExit(f"ollama cannot be built: {error}") from error


if __name__ == "__main__":
    main()
