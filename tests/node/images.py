"""Images for the tests' node as OCI archives: pause, control and runner.

The archives are in ``$XDG_CACHE_HOME/corral/images/`` (``~/.cache`` without that variable), keyed by all their inputs:
an image is built at its first use and after one of its files has changed. Corral's two images come from the Dockerfile
by ``scripts/images.py``, with buildah and its own storage, whose layers are kept: an edit of Corral rebuilds only the
last layers.

``python -m tests.node.images`` builds missing archives and prints their paths.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from scripts import ui
from scripts.llama_wheel import cache_dir
from tests.node import node_config

ROOT = Path(__file__).parents[2]
PROGRAMS = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "gcc": "gcc"}
"""Programs that the build needs, with their Debian packages."""

_COMMON = ("Dockerfile", "images", "pyproject.toml", "requirements", "README.md", "LICENSE", "operator", "server")
_PARTS = {
    "control": (*_COMMON, "scripts/compile_hook.py"),
    "runner": (*_COMMON, "scripts/llama_wheel.py"),
}
_KEPT = 6
_STORE_LIMIT = 8 * 1024**3
"""Bytes above which buildah's storage is deleted before a build."""

Report = Callable[[str], None]


class ImagesError(Exception):
    """The images cannot be built; the text says why."""


def archives(report: Report | None = None) -> list[Path]:
    """Return the archives; build missing ones. Raises ImagesError."""
    say = report or (lambda line: None)
    ui.provide_if_possible()  # before the digests: the images contain the page
    files = {"pause": _archive("pause", [ROOT / "tests/node/pause.c"])}
    files |= {name: _archive(name, [ROOT / part for part in parts]) for name, parts in _PARTS.items()}
    if any(not path.exists() for path in files.values()):
        with _lock(say):
            _build(files, say)
    return list(files.values())


def _archive(name: str, parts: Sequence[Path]) -> Path:
    return cache_dir() / "images" / f"{name}-{_digest(parts)}.tar"


def _digest(parts: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        files = sorted(part.rglob("*")) if part.is_dir() else [part]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@contextmanager
def _lock(say: Report) -> Iterator[None]:
    """Allow one build at a time; the lock ends with the process that holds it."""
    folder = cache_dir() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is building the images; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build(files: dict[str, Path], say: Report) -> None:
    store = cache_dir() / "images" / "store"
    _limit(store)
    if not files["pause"].exists():
        _make_pause(store, files["pause"])
    wanted = [name for name in _PARTS if not files[name].exists()]
    if wanted:
        say(f"building the images {', '.join(wanted)} (minutes the first time)")
    for name in wanted:
        with tempfile.TemporaryDirectory(dir=store.parent) as work:
            script = [sys.executable, f"{ROOT}/scripts/images.py", name, "--engine", "buildah", "--store", str(store)]
            _run([*script, "--output", work], timeout=1800)
            (Path(work) / f"{name}.tar").replace(files[name])
        _forget_old(name, files[name])


def _make_pause(store: Path, archive: Path) -> None:
    """Build the sandbox image of pods; it is built here because no registry is needed then."""
    with tempfile.TemporaryDirectory(dir=store.parent) as work:
        _run(["gcc", "-static", "-O1", "-o", f"{work}/pause", ROOT / "tests/node/pause.c"], timeout=60)
        name = node_config.PAUSE
        _from_scratch(store, name, Path(work) / "pause", target="/pause", entrypoint='["/pause"]')
        _buildah(store, "push", "--quiet", name, f"oci-archive:{work}/pause.tar:{name}")
        (Path(work) / "pause.tar").replace(archive)


def _from_scratch(store: Path, name: str, file: Path, *, target: str, entrypoint: str) -> None:
    """Build an image of one file."""
    container = _buildah(store, "from", "scratch").stdout.strip()
    try:
        _buildah(store, "add", "--quiet", container, str(file), target)
        _buildah(store, "config", "--entrypoint", entrypoint, container)
        _buildah(store, "commit", "--quiet", container, name)
    finally:
        _buildah(store, "rm", container)


def _buildah(store: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = ["buildah", "--root", f"{store}/storage", "--runroot", f"{store}/run", *arguments]
    return _run(command, timeout=300, check=check)


def _run(command: Sequence[str | Path], *, timeout: float, check: bool = True) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImagesError(str(error)) from error
    if check and done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()[-15:]
        raise ImagesError(f"{' '.join(words[:4])} ... failed:\n" + "\n".join(lines))
    return done


def _forget_old(name: str, newest: Path) -> None:
    """Keep the latest archives of an image, so that switching between versions needs no build."""
    known = sorted(newest.parent.glob(f"{name}-*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in known[_KEPT:]:
        path.unlink(missing_ok=True)


def _limit(store: Path) -> None:
    used = sum(file.lstat().st_blocks * 512 for file in store.rglob("*")) if store.exists() else 0
    if used > _STORE_LIMIT:
        shutil.rmtree(store)


def missing() -> str | None:
    """Return what this machine lacks to build images; None if nothing."""
    if os.geteuid() != 0:
        return "building images and running a node need root"
    lacking = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    return f"these Debian packages are not installed: {' '.join(lacking)}" if lacking else None


def main() -> None:
    if reason := missing():
        raise SystemExit(reason)
    try:
        print("\n".join(map(str, archives(lambda line: print(f"  {line}", file=sys.stderr, flush=True)))))
    except ImagesError as error:
        raise SystemExit(f"the images cannot be built: {error}") from error


if __name__ == "__main__":
    main()
