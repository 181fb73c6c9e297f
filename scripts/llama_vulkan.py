"""Builds llama.cpp's Vulkan backend once into the user's cache and prints the path of ``libggml-vulkan.so``.

It takes seven minutes on two cores. Requirements of Debian: ``glslc``, ``spirv-headers``, ``libvulkan1``, and Vulkan
headers of 1.4 or newer. Debian 12 has 1.3.239, with which the backend does not compile. There apt gets
``libvulkan-dev`` of Debian 13 and checks it with the archive's keys, without installing it: the headers declare what
the driver may have, and do not depend on a release.

Progress goes to standard error; standard output has the path alone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.ggml_backend import Backend  # a script's sys.path has only its own folder

_HEADERS = Path("/usr/include")
_DEBIAN_13 = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main"


def backend() -> Backend:
    return Backend("vulkan", ("-DGGML_VULKAN=ON",), _prepare)


def library() -> Path:
    """Return the library's path; compile it if the cache lacks it. Raises SystemExit that says what to do."""
    return backend().provide(missing=lacking, packages="glslc spirv-headers libvulkan1", duration="seven minutes")


def lacking() -> list[str]:
    """Return what the build needs and this machine lacks, besides compilers."""
    found = {
        "glslc": shutil.which("glslc") is not None,
        "spirv-headers": (_HEADERS / "spirv").is_dir(),
        "libvulkan1": _loader() is not None,
    }
    return [name for name, there in found.items() if not there]


def _prepare(work: Path) -> tuple[tuple[str, ...], Mapping[str, str]]:
    return (f"-DVulkan_INCLUDE_DIR={_headers(work)}", f"-DVulkan_LIBRARY={_loader()}"), {}


def _headers(work: Path) -> Path:
    """Return the folder of the system's Vulkan headers if they are new enough, else of Debian 13's."""
    if _version(_HEADERS) >= (1, 4):
        return _HEADERS
    for folder in ("lists/partial", "cache/archives/partial"):
        (work / "apt" / folder).mkdir(parents=True)
    (work / "apt/sources.list").write_text(_DEBIAN_13 + "\n")
    options = {
        "Dir::Etc::SourceList": work / "apt/sources.list",
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": work / "apt/lists",
        "Dir::Cache": work / "apt/cache",
        "APT::Sandbox::User": "root",  # the folders belong to this user
        "Acquire::Languages": "none",
    }
    apt = ["apt-get", "-qq", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]
    for command in ("update",), ("download", "libvulkan-dev"):
        if subprocess.run([*apt, *command], cwd=work, stdout=sys.stderr, check=False).returncode != 0:
            raise SystemExit("the Vulkan headers of Debian 13 cannot be downloaded; apt's message above says why")
    package = next(work.glob("libvulkan-dev_*.deb"))
    subprocess.run(["dpkg-deb", "-x", str(package), str(work / "headers")], check=True)
    return work / "headers/usr/include"


def _version(headers: Path) -> tuple[int, int]:
    """Return major and minor version of Vulkan headers, zeros without any."""
    file = headers / "vulkan/vulkan_core.h"
    text = file.read_text() if file.is_file() else ""
    found = re.search(r"VK_HEADER_VERSION_COMPLETE VK_MAKE_API_VERSION\(0, (\d+), (\d+),", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _loader() -> Path | None:
    """Return the Vulkan loader, against which the backend is linked."""
    return next((file for lib in ("lib", "lib64") for file in Path("/usr", lib).rglob("libvulkan.so.1")), None)


if __name__ == "__main__":
    print(library())
