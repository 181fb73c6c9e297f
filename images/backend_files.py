"""Collect the files by which an image with a GPU backend of ggml exceeds the runner image.

These are the library of the backend, beside the CPU's, the shared libraries that it loads, and for Vulkan the drivers
of Mesa with their manifests. The runner image is the lower layers, so a node with several images has it once.

usage: backend_files.py LIBRARY BASE TARGET [WHEELS]

BASE is the root folder of the runner image. WHEELS is a folder of installed Python wheels that have shared libraries
for the backend; those that it loads are placed where the dynamic loader searches.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import debian_packages
import rootfs

MANIFESTS = Path("/usr/share/vulkan/icd.d")
"""Mesa's manifests, which name the libraries of its drivers."""
NVIDIA_NEEDS = ("libX11.so.6", "libXext.so.6")
"""Libraries that NVIDIA's Vulkan driver is linked with; the container toolkit mounts the driver without them."""


def main() -> None:
    library, base, target = map(Path, sys.argv[1:4])
    packages = next(base.glob("opt/corral/lib/python3*/site-packages"))
    folder = next(packages.rglob("libggml-cpu*.so")).parent  # the one folder that the runner offers to ggml
    if len(sys.argv) > 4:
        use_wheels(Path(sys.argv[4]), library, target / packages.relative_to(base))
    drivers = sorted(vulkan_drivers()) if library.name == "libggml-vulkan.so" else []
    own = {path.name for path in (packages / "llama_cpp/lib").iterdir()}
    found = [*drivers, *rootfs.libraries([library, *drivers], provided=own)]
    added = [path for path in found if not (base / path.relative_to("/")).exists()]
    for path in added:
        rootfs.place(path, target)
    rootfs.place(library, target, as_path=target / folder.relative_to(base) / library.name)
    manifests = list(MANIFESTS.glob("*.json")) if drivers else []
    for path in manifests:
        rootfs.place(path, target)
    debian_packages.record([*added, *manifests, *map(Path, map(os.path.realpath, added))], target)
    (target / "etc/os-release").unlink()  # the runner image has it


def vulkan_drivers() -> Iterator[Path]:
    """Yield the libraries of Mesa's drivers, and those that NVIDIA's driver expects."""
    folder = next(Path("/usr/lib").glob("*-linux-gnu/libvulkan.so.1")).parent
    yield from (folder / name for name in NVIDIA_NEEDS)
    for manifest in MANIFESTS.glob("*.json"):
        named = re.search(r'"library_path":\s*"([^"]+)"', manifest.read_text())
        assert named is not None, manifest
        yield folder / Path(named[1]).name


def use_wheels(wheels: Path, library: Path, packages: Path) -> None:
    """Move the libraries of the wheels that ``library`` loads to the system's folder, and copy the wheels' records."""
    folder = next(Path("/usr/lib").glob("*-linux-gnu"))
    there = {path.name: path for path in wheels.rglob("*.so.*")}
    while found := there.keys() & rootfs.missing_libraries([library]):
        for name in found:
            shutil.move(there.pop(name), folder / name)
    for record in wheels.glob("*.dist-info"):
        shutil.copytree(record, packages / record.name, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
