"""The images' base where no registry answers: made with mmdebstrap from Debian's packages, under the base's own name.

Only for buildah. A base that is there already, or that can be pulled, is left as it is.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

BASE = "docker.io/library/debian:bookworm-slim"
"""The Dockerfile's."""

_SUITE = "bookworm"
_PACKAGES = "python3,python3-venv,ca-certificates,libgomp1,libstdc++6,gcc,libc6-dev,python3-dev"
"""What the Dockerfile's stages need: with it there, the build asks no Debian mirror. The images get what they run."""


def provide(buildah: Sequence[str]) -> None:
    """``buildah`` is the command with its storage options. Raises SystemExit when there is no way to a base."""
    if _run([*buildah, "inspect", "--type", "image", BASE]).returncode == 0:
        return
    pulled = _run([*buildah, "pull", "--quiet", "--retry", "0", BASE])
    if pulled.returncode == 0:
        return
    if shutil.which("mmdebstrap") is None:
        raise SystemExit(
            f"{BASE} cannot be pulled ({pulled.stderr.strip().splitlines()[-1:]}); with mmdebstrap installed it is"
            " made from Debian's packages, and --base names another image"
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
