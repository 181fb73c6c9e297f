"""Programs of the object stores in the tests, built or installed once into the user's cache.

- ``versitygw`` (S3) and ``fake-gcs-server`` (Google Cloud Storage) are compiled from their Go modules; ``go.mod`` and
  ``go.sum`` beside this file pin every version.
- ``azurite`` (Azure Blob Storage) is installed by npm; ``azurite/package-lock.json`` pins every version.
- A program is in ``$XDG_CACHE_HOME/corral/object-stores/<program>-<key>/`` (default ``~/.cache``), complete or not at
  all. The key covers the pinning files and the version of Go or Node.js. A lock makes concurrent builds take turns.

``python -m tests.pull.servers.object_programs`` builds all of them and prints their commands.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent
GO_PACKAGES: Final = {
    "versitygw": "github.com/versity/versitygw/cmd/versitygw",
    "fake-gcs-server": "github.com/fsouza/fake-gcs-server",
}
AZURITE: Final = "azurite"
PROGRAMS: Final = (*GO_PACKAGES, AZURITE)
_AZURITE_MAIN: Final = "node_modules/azurite/dist/src/blob/main.js"
_BUILD_TIMEOUT: Final = 3600.0
_QUERY_TIMEOUT: Final = 60.0
Report = Callable[[str], None]


class ProgramError(Exception):
    """A program cannot be built on this machine; the text is one line that says what is missing."""


def command(name: str, report: Report | None = None) -> list[str]:
    """Return the command that starts a program; build it first if necessary. Raises ProgramError."""
    tool, package = ("npm", "Node.js with npm") if name == AZURITE else ("go", "Go (https://go.dev/dl)")
    if shutil.which(tool) is None:
        raise ProgramError(f"{package} is not installed, which {name} needs")
    folder = _folder(name)
    built = folder / (_AZURITE_MAIN if name == AZURITE else name)
    if not built.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released when the process exits
            if not built.exists():
                (report or (lambda line: None))(f"building {name} (once)")
                _publish(name, folder)
    return ["node", str(built)] if name == AZURITE else [str(built)]


def build_all(report: Report | None = None) -> None:
    """Build the programs that are missing. Raises ProgramError."""
    for name in PROGRAMS:
        command(name, report)


def require_all() -> None:
    """Skip the test if a program cannot be built; with CORRAL_REQUIRE_CLUSTER=1 it fails."""
    try:
        build_all()
    except ProgramError as error:
        if os.environ.get("CORRAL_REQUIRE_CLUSTER") == "1":
            pytest.fail(f"CORRAL_REQUIRE_CLUSTER=1, but {error}", pytrace=False)
        pytest.skip(str(error))


def _folder(name: str) -> Path:
    files = ("azurite/package.json", "azurite/package-lock.json") if name == AZURITE else ("go.mod", "go.sum")
    version = ["node", "--version"] if name == AZURITE else ["go", "version"]
    key = hashlib.sha256(_run(version, cwd=HERE, timeout=_QUERY_TIMEOUT).encode())
    for file in files:
        key.update((HERE / file).read_bytes())
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "corral" / "object-stores" / f"{name}-{key.hexdigest()[:16]}"


def _publish(name: str, folder: Path) -> None:
    """Build into a temporary folder and rename it."""
    for leftover in folder.parent.glob(f"build-{name}-*"):  # of a killed build: this process holds the lock
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f"build-{name}-", dir=folder.parent))
    try:
        if name == AZURITE:
            for file in ("package.json", "package-lock.json"):
                shutil.copy(HERE / "azurite" / file, work)
            _run(["npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=work)
        else:
            build = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(work / name), GO_PACKAGES[name]]
            _run(build, cwd=HERE, environment={"CGO_ENABLED": "0"})
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _run(
    arguments: Sequence[str],
    *,
    cwd: Path,
    timeout: float = _BUILD_TIMEOUT,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Return the standard output of a command. Raises ProgramError."""
    try:
        done = subprocess.run(
            arguments,
            cwd=cwd,
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProgramError(f"{arguments[0]} {arguments[1]} did not end within {timeout:.0f} s") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ProgramError(f"{arguments[0]} {arguments[1]} failed: {last}")
    return done.stdout


def main() -> None:
    for name in PROGRAMS:
        try:
            print(*command(name, lambda line: print(f"  {line}", file=sys.stderr, flush=True)))
        except ProgramError as error:
            raise SystemExit(f"{name} cannot be built: {error}") from error


if __name__ == "__main__":
    main()
