"""Build the web page of the gateway once into the user's cache, and copy it to where the gateway serves it from.

usage: ui.py [--optional]

- The page is in ``ui/``. Its npm packages are installed by the lock file (``npm ci``) into the cache, keyed by the lock
  file, the version of Node.js and the machine. The built page is kept in the cache too, keyed by its sources.
- Folders appear in the cache complete or not at all. One process builds at a time, and the others wait for it.
- In ``server/corral_server/gateway/ui/static/`` each file is replaced as a whole, the index after the files that it
  names. Nothing is written if the page there is the newest one.
- npm uses the registry that is configured on the machine.
- ``--optional``: a page that cannot be built is reported, and no error. Without a page, the gateway works, and ``/ui/``
  answers that there is none.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.llama_wheel import cache_dir, locked, say  # noqa: E402  # a script's sys.path has only its own folder

SOURCES = ROOT / "ui"
TARGET = ROOT / "server/corral_server/gateway/ui/static"
OLDEST_NODE = (20, 19)
"""The oldest Node.js that the page's build tool supports."""

_NOT_SOURCES = ("node_modules", "dist", "compiled")
_NOT_IN_PAGE = (*_NOT_SOURCES, "tests")
_PACKAGE_FILES = ("package.json", "package-lock.json", ".npmrc")
_KEPT = 4
"""Number of built pages, and of sets of npm packages, that stay in the cache."""


class UIError(Exception):
    """The page cannot be built; the text says why and what to do."""


def provide() -> None:
    """Build the page if the cache lacks it, and copy it into place. Raises UIError."""
    with locked(_cache(), "waiting for another process that builds the page"):
        page = _cache() / f"page-{_digest(SOURCES)}"
        if not page.is_dir():
            page = _build()
        page.touch()
        put(page, TARGET)


def provide_if_possible() -> None:
    """Do the same; if it fails, print the reason and go on without the page."""
    try:
        provide()
    except UIError as error:
        say(f"going on without the web page of the gateway: {error}")


def problem() -> str | None:
    """Return what this machine lacks to build the page; None if nothing."""
    wanted = f"Node.js {'.'.join(map(str, OLDEST_NODE))} or newer with npm"
    if shutil.which("node") is None or shutil.which("npm") is None:
        return f"{wanted} is not installed (https://nodejs.org/en/download)"
    done = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"v(\d+)\.(\d+)", done.stdout)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_NODE:
        return f"{wanted} is needed, and this is {done.stdout.strip() or 'no working one'}"
    return None


@contextmanager
def workspace() -> Iterator[tuple[Path, Mapping[str, str]]]:
    """Yield a copy of ``ui/`` whose programs find the npm packages, and the environment in which they run."""
    packages = _packages()
    with tempfile.TemporaryDirectory(prefix="work-", dir=packages) as work:
        copy = Path(work) / "ui"
        shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns(*_NOT_SOURCES))
        programs = packages / "node_modules/.bin"
        yield copy, os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "NO_COLOR": "1"}


def run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    """Run a program of the page's build. Raises UIError with the end of its output."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()[-60:]
        raise UIError(f"{' '.join(command)} failed:\n" + "\n".join(lines))


def put(page: Path, target: Path) -> None:
    """Make ``target`` equal to the built page, file by file; what is equal already is not written."""
    wanted = {path.relative_to(page): path for path in page.rglob("*") if path.is_file()}
    for name in sorted(wanted, key=lambda name: name.name == "index.html"):  # the index last
        _replace(target / name, wanted[name].read_bytes())
    for path in target.rglob("*"):
        if path.is_file() and path.relative_to(target) not in wanted:
            path.unlink()


def _build() -> Path:
    """Build from a copy of the sources, so that an edit during the build cannot get into a page with another key."""
    with workspace() as (sources, environment):
        run(["vite", "build"], sources, environment)
        page = _cache() / f"page-{_digest(sources)}"
        if not page.is_dir():
            (sources / "dist").rename(page)
    _remove_old("page-*")
    return page


def _packages() -> Path:
    """Return the folder with the npm packages; install them if the cache lacks it."""
    if reason := problem():
        raise UIError(reason)
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(f"{version} {platform.system()} {platform.machine()}".encode())
    for name in _PACKAGE_FILES:
        digest.update((SOURCES / name).read_bytes())
    folder = _cache() / f"packages-{digest.hexdigest()[:16]}"
    with locked(_cache() / "install", "waiting for another process that installs the npm packages of the page"):
        if not folder.is_dir():
            _install(folder)
    os.utime(folder)
    return folder


def _install(folder: Path) -> None:
    say("installing the npm packages of the web page")
    with tempfile.TemporaryDirectory(prefix="install-", dir=folder.parent) as work:
        made = Path(work) / "packages"
        made.mkdir()
        for name in _PACKAGE_FILES:
            shutil.copyfile(SOURCES / name, made / name)
        run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], made, os.environ)
        made.rename(folder)
    _remove_old("packages-*")


def _replace(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and name.parts[0] not in _NOT_IN_PAGE:
            digest.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _remove_old(pattern: str) -> None:
    found = sorted(_cache().glob(pattern), key=lambda path: path.stat().st_mtime)
    for path in found[:-_KEPT]:
        shutil.rmtree(path, ignore_errors=True)


def _cache() -> Path:
    return cache_dir() / "ui"


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the web page of the gateway and copy it into place.")
    parser.add_argument("--optional", action="store_true", help="go on without the page if it cannot be built")
    if parser.parse_args().optional:
        provide_if_possible()
        return
    try:
        provide()
    except UIError as error:
        raise SystemExit(f"the web page cannot be built: {error}") from error


if __name__ == "__main__":
    main()
