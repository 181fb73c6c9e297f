"""The Kubernetes programs of the test cluster, compiled once from their Go modules into the user's cache.

``go.mod`` and ``go.sum`` beside this file name every version. The programs lie in
``$XDG_CACHE_HOME/corral/kubernetes/<key>/`` (``~/.cache`` without that variable); the key covers both files and Go's
own version, so a change of either builds anew and nothing else does. A program appears there complete or not at all,
and two builders at once take turns. The user's GOFLAGS, GOPROXY and build cache are left as they are.

``python -m tests.cluster.tools [PROGRAM...]`` builds (all that the tests start, by default) and prints the folder.
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
_BUILT_AS = {"etcd": "server"}
"""Go names a program after its package's last folder; these differ."""

_GO_LIST_TIMEOUT = 300.0
Report = Callable[[str], None]


class ToolsError(Exception):
    """The programs cannot be had on this machine; the text is one line that says what is missing."""


def programs(names: Sequence[str] = CONTROL_PLANE, report: Report | None = None) -> Path:
    """The folder that holds the named programs, built first where they are not there yet.

    ``report`` is given one line of progress now and then. Raises ToolsError.
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
    """Standard output of the go command. Raises ToolsError."""
    if shutil.which("go") is None:
        raise ToolsError("Go is not installed (https://go.dev/dl; any version from 1.21 on fetches the one it needs)")
    try:
        done = subprocess.run(
            ["go", *arguments], cwd=HERE, capture_output=True, text=True, timeout=_GO_LIST_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise ToolsError(f"go {arguments[0]} did not end within {_GO_LIST_TIMEOUT:.0f} s") from None
    if done.returncode != 0:
        raise ToolsError(f"go {arguments[0]} failed: {_last_line(done.stderr)}")
    return done.stdout.strip()


@contextmanager
def _lock(folder: Path, say: Report) -> Iterator[None]:
    """One builder at a time; the lock goes with the process that holds it."""
    with folder.with_suffix(".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is building the Kubernetes programs; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build(names: Sequence[str], folder: Path, say: Report) -> None:
    for left_over in folder.glob("build-*"):  # of a build that was killed: we hold the lock, so nobody is in it
        shutil.rmtree(left_over, ignore_errors=True)
    packages = [PACKAGES[name] for name in names]
    say(f"compiling {', '.join(names)} (once; about ten minutes on two cores)")
    total = len(_go("list", "-deps", *packages).splitlines())
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder) as work:
        command = ["go", "build", "-v", "-trimpath", "-ldflags", f"-s -w {_version_flags()}", "-o", f"{work}/"]
        process = subprocess.Popen(
            [*command, *packages],
            cwd=HERE,
            env=os.environ | {"CGO_ENABLED": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        last = _follow(process, total, say)
        if process.wait() != 0:
            raise ToolsError(f"go build failed: {last}")
        for name in names:
            (Path(work) / _BUILT_AS.get(name, name)).replace(folder / name)


def _version_flags() -> str:
    """What makes the programs say the version of the Kubernetes module that they were built from."""
    version = _go("list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
    match = re.match(r"v(\d+)\.(\d+)\.", version)
    if match is None:
        raise ToolsError(f"k8s.io/kubernetes has an unexpected version: {version}")
    at = "k8s.io/component-base/version"
    return f"-X {at}.gitVersion={version} -X {at}.gitMajor={match[1]} -X {at}.gitMinor={match[2]}"


def _follow(process: subprocess.Popen[str], total: int, say: Report) -> str:
    """Reports how many of ``total`` packages are compiled; returns the build's last line."""
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
