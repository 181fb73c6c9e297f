"""Gathers what a container needs to run the environment in /opt/corral: the interpreter, the shared libraries that it
and the installed packages load, certificates, and a user; nothing else, so no shell.

usage: rootfs.py TARGET
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ENVIRONMENT = Path("/opt/corral")
STDLIB = Path(sysconfig.get_path("stdlib"))
UNUSED = ("test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "config-*", "__pycache__")
BUILD_TOOLS = ("pip", "pip-*", "setuptools*", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")
DUPLICATES = ("lib/libllama*", "lib/libggml*", "lib/cmake", "lib/pkgconfig", "include")
"""What llama-cpp-python's wheel brings twice, beside what its own package folder holds."""
DRIVERS = {"libcuda.so.1"}
"""Libraries that belong to the node's GPU driver; its container runtime mounts them."""
_LINKED = re.compile(r"=> (/\S+)|^\s+(/\S+) \(", re.MULTILINE)


def main() -> None:
    root = Path(sys.argv[1])
    packages = ENVIRONMENT / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    prune(packages)
    copy_python(root)
    for library in sorted(libraries([Path(os.path.realpath(sys.executable)), *binaries(STDLIB), *binaries(packages)])):
        place(library, root)
    for folder in ("etc", "tmp", "etc/ssl/certs"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/")
    (root / "etc/passwd").write_text("root:x:0:0::/:/\ncorral:x:65532:65532::/tmp:/\n")
    (root / "etc/group").write_text("root:x:0:\ncorral:x:65532:\n")
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")


def prune(packages: Path) -> None:
    """Takes what is only needed to install, and copies of one library, out of the environment."""
    for pattern in (*BUILD_TOOLS, *DUPLICATES, "**/__pycache__", "numpy/**/tests", "llama_cpp/server"):
        for path in list(packages.glob(pattern)):
            remove(path)
    own = packages / "llama_cpp" / "lib"
    for library in list(own.glob("*.so*")) if own.exists() else []:
        if not library.name.endswith(".so.0") and (own / f"{library.name.split('.so')[0]}.so.0").exists():
            library.unlink()
            if library.name.endswith(".so"):
                library.symlink_to(f"{library.name}.0")
    for name in ("pip", "pip3", "activate", "Activate.ps1"):
        for path in (ENVIRONMENT / "bin").glob(f"{name}*"):
            remove(path)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        path.unlink()


def copy_python(root: Path) -> None:
    shutil.copytree(ENVIRONMENT, root / ENVIRONMENT.relative_to("/"), symlinks=True)
    shutil.copytree(
        STDLIB, root / STDLIB.relative_to("/"), symlinks=False, ignore=shutil.ignore_patterns(*UNUSED, "*.a")
    )
    real = Path(os.path.realpath(sys.executable))
    target = root / real.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(real, target)
    link = root / "usr/bin/python3"
    if not link.exists():
        link.symlink_to(real.name)


def binaries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.so*") if path.is_file()]


def libraries(files: list[Path]) -> set[Path]:
    """The shared libraries of the system that these files load, and the loader."""
    output = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False).stdout
    missing = set(re.findall(r"(\S+) => not found", output)) - {path.name for path in files} - DRIVERS
    if missing:
        raise SystemExit(f"the base image lacks shared libraries: {', '.join(sorted(missing))}")
    found = {Path(match[1] or match[2]) for match in _LINKED.finditer(output)}
    return {path for path in found if not path.is_relative_to(ENVIRONMENT)} | name_service()


def name_service() -> set[Path]:
    """What the C library loads by name when it looks up hosts."""
    names = ("libnss_dns", "libnss_files", "libresolv.so")
    return {path for path in Path("/").glob("lib/*-linux-gnu/lib*") if path.name.startswith(names)}


def place(library: Path, root: Path) -> None:
    """Copies a library to where the loader looks for it (both /lib and /usr/lib are searched)."""
    target = root / library.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(os.path.realpath(library), target)


if __name__ == "__main__":
    main()
