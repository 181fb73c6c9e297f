"""Base image for buildah when no registry is reachable: made with mmdebstrap from Debian packages.

The image gets the name of the Dockerfile's base image. An image that is in the local storage, or that can be pulled, is
used instead.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

BASE = "docker.io/library/debian:bookworm-slim"
"""Name of the base image in the Dockerfile."""

_SUITE = "bookworm"
_PACKAGES = "python3,python3-venv,ca-certificates,libgomp1,libstdc++6,gcc,libc6-dev,python3-dev"
"""Packages for all stages of the Dockerfile, so that the build needs no Debian mirror. The images do not keep them."""


def provide(buildah: Sequence[str]) -> None:
    """Make sure that the base image exists. ``buildah`` is the command with its storage options.

    Raises SystemExit if the image can be neither pulled nor made.
    """
    if _run([*buildah, "inspect", "--type", "image", BASE]).returncode == 0:
        return
    pulled = _run([*buildah, "pull", "--quiet", "--retry", "0", BASE])
    if pulled.returncode == 0:
        return
    if shutil.which("mmdebstrap") is None:
        raise SystemExit(
            f"{BASE} cannot be pulled ({pulled.stderr.strip().splitlines()[-1:]}); install mmdebstrap to make"
            " it from Debian packages, or name another image with --base"
        )
    print(f"{BASE} cannot be pulled; making it from Debian's packages", flush=True)
    with tempfile.TemporaryDirectory() as work:
        tree = Path(work) / "base.tar"
        options = ["--mode=root", "--variant=minbase", '--aptopt=Acquire::Languages "none"']
        _must(["mmdebstrap", *options, f"--include={_PACKAGES}", _SUITE, str(tree)])
        _commit(buildah, tree)


def _commit(buildah: Sequence[str], tree: Path) -> None:
    container = _must([*buildah, "from", "scratch"]).strip()
    try:
        _must([*buildah, "add", "--quiet", container, str(tree), "/"])
        _must([*buildah, "commit", "--quiet", container, BASE])
    finally:
        _run([*buildah, "rm", container])


def _must(command: Sequence[str]) -> str:
    done = _run(command)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command[:3])} ... failed:\n{done.stderr.strip()}")
    return done.stdout


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
