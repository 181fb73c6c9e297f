"""Build Corral's images as OCI archives: by default ``dist/control.tar`` and ``dist/runner.tar``.

The further targets are runners for GPUs: ``runner-vulkan``, ``runner-cuda`` and ``runner-rocm``. Beside each archive is
its software bill of materials, for example ``dist/control.cdx.json``.

usage: images.py [--output DIR] [--base IMAGE] [--engine docker|buildx|buildah] [--store DIR] [TARGET...]

- Uses docker (with BuildKit) if it runs, otherwise buildah.
- The images are named ``corral/control:dev``, ``corral/runner:dev`` and so on; the chart uses
  them with ``image.registry=docker.io`` and ``image.tag=dev`` on a node that has the archives.
- The label ``org.opencontainers.image.version`` is the version in pyproject.toml.
- Prints the uncompressed size of each image, and its largest parts.
- Without a registry, buildah uses a base image made with mmdebstrap (``scripts/base_image.py``).
- Cached wheels and backends of this machine are passed to the build (the Dockerfile's stages ``wheels``,
  ``vulkan-cache`` and ``cuda-cache``), which uses those that match the C library of the base image.
- CUDA_ARCHITECTURES is the list of architectures of ``runner-cuda`` (``scripts/llama_cuda.py``).
- The images have the web page if ``scripts/ui.py`` has built it before, as ``make images`` does.
- A certificate authority for the package registries is read from PIP_CERT or SSL_CERT_FILE, and not kept in the image.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import base_image  # noqa: E402  # a script's sys.path has only its own folder
from scripts.llama_wheel import cache_dir  # noqa: E402  # as above
from scripts.release import version  # noqa: E402  # as above
from scripts.sbom import bill_of_materials  # noqa: E402  # as above

TARGETS = ("control", "runner")
"""The targets that are built if none are named."""
CACHES = {"wheels": "wheels", "vulkan-cache": "vulkan", "cuda-cache": "cuda"}
"""Folders of the cache by the stage of the Dockerfile that they replace."""
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Engine:
    """docker, buildx or buildah. ``store`` is buildah's storage folder, None for its default.

    buildx is docker's builder in a container (``docker buildx create --use``). It writes the archive itself, with
    compressed layers, while docker keeps the image in its own store as well.
    """

    name: str
    store: Path | None = None

    def prepare(self) -> None:
        """Make sure that the base image exists; docker pulls it during the build."""
        if self.name == "buildah":
            base_image.provide(self._command())

    def build(self, target: str, archive: Path, *, base: str | None) -> None:
        """Build the image and write it as an OCI archive, renamed into place when it is complete."""
        partial = archive.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        command = [*self._command(), "build", "--target", target, *self._options(base)]
        if self.name == "buildx":  # without the attestation of BuildKit the archive has one manifest
            command += ["--provenance=false", "--output", f"type=oci,dest={partial},name=docker.io/{tag(target)}"]
        else:
            command += ["--tag", tag(target)]
        _run([*command, str(ROOT)])
        if self.name == "buildah":
            name = f"docker.io/{tag(target)}"
            _run([*self._command(), "push", "--quiet", tag(target), f"oci-archive:{partial}:{name}"])
        elif self.name == "docker":
            _run(["docker", "save", "--output", str(partial), tag(target)])
        partial.rename(archive)

    def _options(self, base: str | None) -> list[str]:
        """Return the options of the build that all targets have."""
        options = ["--isolation", "chroot", "--layers"] if self.name == "buildah" else []
        options += ["--build-arg", f"VERSION={version()}"]
        if base:
            options += ["--build-arg", f"BASE={base}"]
        authority = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
        if authority:
            options += ["--secret", f"id=ca,src={authority}"]
        if architectures := os.environ.get("CUDA_ARCHITECTURES"):
            options += ["--build-arg", f"CUDA_ARCHITECTURES={architectures}"]
        for name, text in labels(os.environ).items():
            options += ["--label", f"{name}={text}"]
        for stage, folder in CACHES.items():
            if (cache_dir() / folder).is_dir():
                options += ["--build-context", f"{stage}={cache_dir() / folder}"]
        return options

    def _command(self) -> list[str]:
        if self.name != "buildah":
            return ["docker", "buildx"] if self.name == "buildx" else ["docker"]
        return [
            "buildah",
            *(["--root", f"{self.store}/storage", "--runroot", f"{self.store}/run"] if self.store else []),
        ]


def tag(target: str) -> str:
    return f"corral/{target}:dev"


def labels(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the labels about the commit, which GitHub Actions names in the environment."""
    if "GITHUB_SHA" not in environ:
        return {}
    source = f"{environ['GITHUB_SERVER_URL']}/{environ['GITHUB_REPOSITORY']}"
    return {"org.opencontainers.image.source": source, "org.opencontainers.image.revision": environ["GITHUB_SHA"]}


def find_engine() -> str:
    """Return ``docker`` or ``buildah``. Raises SystemExit if this machine has neither."""
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        return "docker"
    if shutil.which("buildah"):
        return "buildah"
    raise SystemExit(
        "building images needs docker or buildah, and this machine has neither (Debian: apt-get install buildah)"
    )


def unpacked(archive: Path) -> tuple[int, Counter[str]]:
    """Return the uncompressed size of the files in an OCI archive in bytes, in total and by top-level folder."""
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
    """Return lines of text with the uncompressed size of the image in the archive and its five largest parts."""
    size, parts = unpacked(archive)
    lines = [f"{archive}: {name}, {size / _MIB:.0f} MiB uncompressed; largest parts:"]
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
    parser = argparse.ArgumentParser(description="Build Corral's images as OCI archives.")
    parser.add_argument("targets", nargs="*", default=TARGETS, metavar="TARGET")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    parser.add_argument("--base", help="base image (default: the one in the Dockerfile)")
    parser.add_argument("--engine", choices=("docker", "buildx", "buildah"))
    parser.add_argument("--store", type=Path, help="buildah's storage folder")
    options = parser.parse_args()
    engine = Engine(options.engine or find_engine(), options.store)
    options.output.mkdir(parents=True, exist_ok=True)
    if options.base is None:
        engine.prepare()
    for target in options.targets:
        archive = options.output / f"{target}.tar"
        engine.build(target, archive, base=options.base)
        bill = bill_of_materials(archive, tag(target))
        archive.with_suffix(".cdx.json").write_text(json.dumps(bill, indent=1) + "\n")
        print("\n".join(account(archive, tag(target))), flush=True)


if __name__ == "__main__":
    main()
