"""npm packages of the client tests: ``ollama``, ``openai``, and the schema of Continue's configuration.

``node/package-lock.json`` pins every version. They are installed once into
``$XDG_CACHE_HOME/corral/client-packages-<key>/`` (default ``~/.cache``), completely or not at all; the key covers that
file and the version of Node.js.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

FILES: Final = Path(__file__).with_name("node")
_TIMEOUT: Final = 600.0


class PackagesError(Exception):
    """The packages cannot be installed on this machine; the text is one line that says what is missing."""


def installed() -> Path:
    """Return the folder with ``node_modules``; install them first if necessary. Raises PackagesError."""
    if shutil.which("npm") is None:
        raise PackagesError("Node.js with npm is not installed")
    folder = _folder()
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed
            if not folder.exists():
                _install(folder)
    return folder


def _folder() -> Path:
    key = hashlib.sha256(_run(["node", "--version"], FILES).encode())
    key.update((FILES / "package-lock.json").read_bytes())
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "corral" / f"client-packages-{key.hexdigest()[:16]}"


def _install(folder: Path) -> None:
    work = Path(tempfile.mkdtemp(prefix="client-packages-", dir=folder.parent))
    try:
        for file in ("package.json", "package-lock.json"):
            shutil.copy(FILES / file, work)
        _run(["npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"], work)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _run(command: Sequence[str], folder: Path) -> str:
    """Return the standard output. Raises PackagesError."""
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise PackagesError(f"{' '.join(command[:2])} did not end within {_TIMEOUT:.0f} s") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PackagesError(f"{' '.join(command[:2])} failed: {last}")
    return done.stdout
