"""Collect the files of the root file system that runs the virtual environment in /opt/corral.

These are the interpreter, the shared libraries that it and the installed packages load, certificates and a user.
Nothing else is copied, so the image has no shell. The records of their Debian packages go with them.

usage: rootfs.py TARGET
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Collection
from pathlib import Path

import debian_packages

ENVIRONMENT = Path("/opt/corral")
STDLIB = Path(sysconfig.get_path("stdlib"))
UNUSED = ("test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "config-*", "__pycache__")
BUILD_TOOLS = ("pip", "pip-*", "setuptools*", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")
DUPLICATES = ("lib/libllama*", "lib/libggml*", "lib/libmtmd*", "lib/cmake", "lib/pkgconfig", "include")
"""Files of the wheel of llama-cpp-python that are also in its package folder."""
DRIVERS = {"libcuda.so.1"}
"""Libraries of the GPU driver; the container runtime mounts them from the node."""
_LINKED = re.compile(r"=> (/\S+)|^\s+(/\S+) \(", re.MULTILINE)


def main() -> None:
    root = Path(sys.argv[1])
    packages = ENVIRONMENT / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    prune(packages)
    copy_python(root)
    interpreter = Path(os.path.realpath(sys.executable))
    found = sorted(libraries([interpreter, *binaries(STDLIB), *binaries(packages)]))
    for library in found:
        place(library, root)
    certificates = Path("/usr/sbin/update-ca-certificates")  # the program that writes the copied file of certificates
    modules = [path for path in STDLIB.rglob("*.py") if (root / path.relative_to("/")).exists()]
    debian_packages.record(
        [interpreter, certificates, *modules, *found, *map(Path, map(os.path.realpath, found))], root
    )
    for folder in ("etc", "tmp", "etc/ssl/certs"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    copy_authorities(root)
    (root / "etc/passwd").write_text("root:x:0:0::/:/\ncorral:x:65532:65532::/tmp:/\n")
    (root / "etc/group").write_text("root:x:0:\ncorral:x:65532:\n")
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")


def prune(packages: Path) -> None:
    """Remove build tools and duplicate libraries from the environment."""
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


def copy_authorities(root: Path) -> None:
    """Copy the file of the certificate authorities, with a link from the path at which OpenSSL looks for it."""
    authorities = Path("/etc/ssl/certs/ca-certificates.crt")
    shutil.copy(authorities, root / authorities.relative_to("/"))
    link = root / Path(ssl.get_default_verify_paths().openssl_cafile).relative_to("/")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(authorities)


def binaries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.so*") if path.is_file()]


def libraries(files: list[Path], provided: Collection[str] = ()) -> set[Path]:
    """Return the system's shared libraries that these files load, and the dynamic loader.

    ``provided`` are names of libraries that the process has loaded before.
    """
    missing = missing_libraries(files) - {path.name for path in files} - DRIVERS - set(provided)
    if missing:
        raise SystemExit(f"the base image lacks shared libraries: {', '.join(sorted(missing))}")
    found = {Path(match[1] or match[2]) for match in _LINKED.finditer(_ldd(files))}
    return {path for path in found if not path.is_relative_to(ENVIRONMENT)} | name_service()


def missing_libraries(files: list[Path]) -> set[str]:
    """Return the names of the shared libraries that the loader does not find for these files."""
    return set(re.findall(r"(\S+) => not found", _ldd(files)))


def _ldd(files: list[Path]) -> str:
    return subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False).stdout


def name_service() -> set[Path]:
    """Return the libraries that the C library loads by name to resolve host names."""
    names = ("libnss_dns", "libnss_files", "libresolv.so")
    return {path for path in Path("/").glob("lib/*-linux-gnu/lib*") if path.name.startswith(names)}


def place(library: Path, root: Path, as_path: Path | None = None) -> None:
    """Copy a library to the path at which the loader finds it (it searches /lib and /usr/lib), or to ``as_path``."""
    target = as_path or root / library.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(os.path.realpath(library), target)


if __name__ == "__main__":
    main()
