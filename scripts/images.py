"""Builds Corral's images and leaves them as OCI archives: ``dist/control.tar`` and ``dist/runner.tar``.

usage: images.py [--output DIR] [--base IMAGE] [--engine docker|buildah] [--store DIR] [TARGET...]

Takes docker (with BuildKit) or buildah, whichever is there. The archives hold the names ``corral/control:dev`` and
``corral/runner:dev``, which the chart's values take. For each the uncompressed size is printed, and its largest parts.

Where no registry has the base image, buildah gets one that mmdebstrap makes (``scripts/base_image.py``). Wheels that
this machine compiled before are given to the build (the Dockerfile's stage ``wheels``); they are used only where their
C library fits the base image. A certificate authority for the package registries is taken from PIP_CERT or
SSL_CERT_FILE and stays out of the image.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import base_image  # noqa: E402  # started as a file, Python looks for modules beside it only
from scripts.llama_wheel import cache_dir  # noqa: E402  # see above

TARGETS = ("control", "runner")
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Engine:
    """One of the two builders. ``store`` is buildah's storage folder; None: its own."""

    name: str
    store: Path | None = None

    def prepare(self) -> None:
        """Sees to it that the Dockerfile's base image is there; docker looks for it by itself."""
        if self.name == "buildah":
            base_image.provide(self._command())

    def build(self, target: str, *, base: str | None) -> None:
        command = [*self._command(), "build", "--target", target, "--tag", tag(target)]
        if self.name == "buildah":
            command += ["--isolation", "chroot", "--layers"]
        if base:
            command += ["--build-arg", f"BASE={base}"]
        authority = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
        if authority:
            command += ["--secret", f"id=ca,src={authority}"]
        wheels = cache_dir() / "wheels"
        if wheels.is_dir():
            command += ["--build-context", f"wheels={wheels}"]
        _run([*command, str(ROOT)])

    def save(self, target: str, archive: Path) -> None:
        """Writes the image as an OCI archive, moved into place when it is complete."""
        partial = archive.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        if self.name == "buildah":
            name = f"docker.io/{tag(target)}"
            _run([*self._command(), "push", "--quiet", tag(target), f"oci-archive:{partial}:{name}"])
        else:
            _run(["docker", "save", "--output", str(partial), tag(target)])
        partial.rename(archive)

    def _command(self) -> list[str]:
        if self.name == "docker":
            return ["docker"]
        return [
            "buildah",
            *(["--root", f"{self.store}/storage", "--runroot", f"{self.store}/run"] if self.store else []),
        ]


def tag(target: str) -> str:
    return f"corral/{target}:dev"


def find_engine() -> str:
    """Raises SystemExit when neither builder is usable."""
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        return "docker"
    if shutil.which("buildah"):
        return "buildah"
    raise SystemExit(
        "images are built with docker or buildah, and neither is here (on Debian: apt-get install buildah)"
    )


def unpacked(archive: Path) -> tuple[int, Counter[str]]:
    """The uncompressed size of an OCI archive's files in bytes, and the same by top folders."""
    sizes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as outer:
        outer.extractall(folder, filter="data")
        for blob in (path for path in Path(folder).rglob("*") if path.is_file() and path.stat().st_size > 4096):
            if not tarfile.is_tarfile(blob):
                continue
            with tarfile.open(blob) as layer:
                for member in layer:
                    sizes[_part(member.name)] += member.size
    return sum(sizes.values()), sizes


def account(archive: Path, name: str) -> list[str]:
    """Lines for people: the uncompressed size of the image in the archive, and its five largest parts."""
    size, parts = unpacked(archive)
    lines = [f"{archive}: {name}, {size / _MIB:.0f} MiB uncompressed; the largest parts:"]
    return lines + [f"  {amount / _MIB:6.1f} MiB  {part}" for part, amount in parts.most_common(5)]


def _part(name: str) -> str:
    parts = Path(name).parts
    if "site-packages" in parts:
        return "/".join(parts[parts.index("site-packages") :][:2])
    return "/".join(parts[:3])


def _run(command: Sequence[str]) -> None:
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit(f"this command failed: {' '.join(command)}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds Corral's images as OCI archives.")
    parser.add_argument("targets", nargs="*", default=TARGETS, metavar="TARGET")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    parser.add_argument("--base", help="the base image, instead of the Dockerfile's")
    parser.add_argument("--engine", choices=("docker", "buildah"))
    parser.add_argument("--store", type=Path, help="buildah's storage folder")
    options = parser.parse_args()
    engine = Engine(options.engine or find_engine(), options.store)
    options.output.mkdir(parents=True, exist_ok=True)
    if options.base is None:
        engine.prepare()
    for target in options.targets:
        archive = options.output / f"{target}.tar"
        engine.build(target, base=options.base)
        engine.save(target, archive)
        print("\n".join(account(archive, tag(target))), flush=True)


if __name__ == "__main__":
    main()
