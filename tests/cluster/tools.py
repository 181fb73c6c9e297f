"""Kubernetes programs of the test cluster, compiled once from their Go modules into the user's cache.

- ``go.mod`` and ``go.sum`` beside this file pin every version.
- The programs are in ``$XDG_CACHE_HOME/corral/kubernetes/<key>/`` (default ``~/.cache``). The key covers both files and
  the version of Go: a change of either compiles again, and nothing else does.
- A program appears in the folder complete or not at all; a lock makes concurrent builds take turns.
- The user's GOFLAGS, GOPROXY and build cache are used as they are.

``python -m tests.cluster.tools [PROGRAM...]`` compiles the programs (by default those that the tests start) and prints
the folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kwok": "sigs.k8s.io/kwok/cmd/kwok",
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
    "helm": "helm.sh/helm/v3/cmd/helm",
}
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok")
_OUTPUT_NAMES = {"etcd": "server"}
"""Names under which ``go build`` writes a program, where they differ: it uses the last folder of the package."""

_GO_LIST_TIMEOUT = 300.0
Report = Callable[[str], None]


class ToolsError(Exception):
    """The programs cannot be compiled on this machine; the text is one line that says what is missing."""


def programs(names: Sequence[str] = CONTROL_PLANE, report: Report | None = None) -> Path:
    """Return the folder with the named programs; compile those that are missing.

    ``report`` is called with lines of progress. Raises ToolsError.
    """
    folder = _folder()
    if all((folder / name).exists() for name in names):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    say = report or (lambda line: None)
    with _lock(folder, say):
        absent = [name for name in names if not (folder / name).exists()]
        if absent:
            _build(absent, folder, say)
    return folder


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    digest = hashlib.sha256(_go("version").encode())
    for name in ("go.mod", "go.sum"):
        digest.update((HERE / name).read_bytes())
    return Path(base) / "corral" / "kubernetes" / digest.hexdigest()[:16]


def _go(*arguments: str) -> str:
    """Run the go command and return its standard output. Raises ToolsError."""
    if shutil.which("go") is None:
        raise ToolsError("Go is not installed (https://go.dev/dl; any version from 1.21 on fetches the one it needs)")
    try:
        done = subprocess.run(
            ["go", *arguments], cwd=HERE, capture_output=True, text=True, timeout=_GO_LIST_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise ToolsError(f"go {arguments[0]} took longer than {_GO_LIST_TIMEOUT:.0f} s") from None
    if done.returncode != 0:
        raise ToolsError(f"go {arguments[0]} failed: {_last_line(done.stderr)}")
    return done.stdout.strip()


@contextmanager
def _lock(folder: Path, say: Report) -> Iterator[None]:
    """Hold the lock of the folder; the kernel releases it when its process ends."""
    with folder.with_suffix(".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process compiles the Kubernetes programs; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build(names: Sequence[str], folder: Path, say: Report) -> None:
    for leftover in folder.glob("build-*"):  # of a killed build: this process holds the lock
        shutil.rmtree(leftover, ignore_errors=True)
    packages = [PACKAGES[name] for name in names]
    say(f"compiling {', '.join(names)} (once; about ten minutes on two cores)")
    total = len(_go("list", "-deps", *packages).splitlines())
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder) as work:
        command = ["go", "build", "-v", "-trimpath", "-ldflags", f"-s -w {_version_flags()}", "-o", f"{work}/"]
        with subprocess.Popen(
            [*command, *packages],
            cwd=HERE,
            env=os.environ | {"CGO_ENABLED": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            last = _report_progress(process, total, say)
        if process.returncode != 0:
            raise ToolsError(f"go build failed: {last}")
        for name in names:
            (Path(work) / _OUTPUT_NAMES.get(name, name)).replace(folder / name)


def _version_flags() -> str:
    """Return the linker flags that set the version which the programs report: that of the Kubernetes module."""
    version = _go("list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
    match = re.match(r"v(\d+)\.(\d+)\.", version)
    if match is None:
        raise ToolsError(f"k8s.io/kubernetes has an unexpected version: {version}")
    at = "k8s.io/component-base/version"
    return f"-X {at}.gitVersion={version} -X {at}.gitMajor={match[1]} -X {at}.gitMinor={match[2]}"


def _report_progress(process: subprocess.Popen[str], total: int, say: Report) -> str:
    """Report how many of ``total`` packages are compiled; return the last line of the build's output."""
    assert process.stdout is not None
    start, shown, last = time.monotonic(), 0.0, ""
    for count, line in enumerate(process.stdout, start=1):
        last = line.strip() or last
        if time.monotonic() - shown >= 5.0:
            shown = time.monotonic()
            minutes, seconds = divmod(int(shown - start), 60)
            say(f"compiling Kubernetes: {min(99, 100 * count // total):2d} %  ({minutes}:{seconds:02d})")
    return last


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def main() -> None:
    names = sys.argv[1:] or list(CONTROL_PLANE)
    unknown = [name for name in names if name not in PACKAGES]
    if unknown:
        raise SystemExit(f"not a program of the test cluster: {', '.join(unknown)} (known: {', '.join(PACKAGES)})")
    try:
        print(programs(names, lambda line: print(f"  {line}", file=sys.stderr, flush=True)))
    except ToolsError as error:
        raise SystemExit(f"the Kubernetes programs cannot be built: {error}") from error


if __name__ == "__main__":
    main()
