"""Where the weights of a Model are: the ``source`` URI, and the file it means on this machine.

``package://python_package/path`` is a file inside an installed Python package (which is found, never imported),
``pvc://claim/path`` a file on a PersistentVolumeClaim that is mounted at the weights root, ``file:///path`` a file of
the machine or image that the runner runs on. Paths cannot leave the package or the claim.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from corral_core.errors import SourceError

SCHEMES = ("package", "file", "pvc")
"""The schemes that work."""
LATER = ("ollama", "hf", "https", "http", "s3", "oci")
"""Schemes that people will try; the refusal says that it is not their spelling that is wrong."""
FORMS = "package://python_package/file.gguf, file:///path/file.gguf or pvc://claim/path/file.gguf"

_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<root>[^/]*)/(?P<path>.+)", re.DOTALL)
_HIDDEN = re.compile(r"%([01][0-9A-Fa-f]|2[EeFf]|7[Ff])")
_PACKAGE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_CLAIM = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed source. ``root`` is the Python package or the claim, empty for ``file``.

    ``path`` is relative to the root, and absolute for ``file``; percent-encoding is decoded.
    """

    uri: str
    scheme: str
    root: str
    path: PurePosixPath


def parse_source(uri: str) -> Source:
    """Raises SourceError, which lists what works."""
    match = _URI.fullmatch(uri)
    scheme = match["scheme"] if match else uri.partition(":")[0]
    if scheme in LATER:
        raise SourceError(f"source {uri!r}: {scheme}:// is not supported yet; what works is {FORMS}")
    if match is None or scheme not in SCHEMES:
        raise SourceError(f"source {uri!r} is not understood; what works is {FORMS}")
    _check_root(uri, scheme, root=match["root"])
    path = PurePosixPath("/" if scheme == "file" else "", _checked_path(uri, match["path"]))
    return Source(uri=uri, scheme=scheme, root=match["root"], path=path)


def locate(source: Source, pvc_root: Path = Path("/weights")) -> Path:
    """The weights file on this machine. Raises SourceError when it is not there."""
    if source.scheme == "file":
        return _existing(source, Path(source.path))
    if source.scheme == "pvc":
        found = _existing(source, pvc_root / source.path)
        if not found.resolve().is_relative_to(pvc_root.resolve()):
            raise SourceError(f"source {source.uri!r}: the path is a link that leaves the claim")
        return found
    return _in_package(source)


def _check_root(uri: str, scheme: str, *, root: str) -> None:
    if scheme == "file" and root:
        raise SourceError(f"source {uri!r}: a file has no host; write file:///{root}/...")
    if scheme == "package" and not _PACKAGE.fullmatch(root):
        raise SourceError(f"source {uri!r}: {root!r} is no name of a Python package; write {FORMS}")
    if scheme == "pvc" and not (_CLAIM.fullmatch(root) and len(root) <= 253):
        raise SourceError(f"source {uri!r}: {root!r} is no name of a PersistentVolumeClaim; write {FORMS}")


def _checked_path(uri: str, encoded: str) -> str:
    if "?" in encoded or "#" in encoded:
        raise SourceError(f"source {uri!r}: a path has no '?' or '#' (write %3F or %23 for the characters)")
    if _HIDDEN.search(encoded):
        raise SourceError(f"source {uri!r}: the path must not have control characters, '.' or '/' as %-codes")
    path = unquote(encoded)
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise SourceError(f"source {uri!r}: the path has control characters")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise SourceError(f"source {uri!r}: the path must not have empty parts, '.' or '..'")
    return path


def _in_package(source: Source) -> Path:
    """The file below the package's folders; only the top-level package is looked up, since that runs no code of it."""
    top, *below = source.root.split(".")
    try:
        spec: importlib.machinery.ModuleSpec | None = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise SourceError(
            f"source {source.uri!r}: there is no Python package {top!r} here; "
            "install the distribution that brings it (with pip's --no-deps when only its files are needed)"
        )
    folders = [Path(folder, *below) for folder in spec.submodule_search_locations or ()]
    for folder in folders:
        if (folder / source.path).is_file():
            return folder / source.path
    raise SourceError(f"source {source.uri!r}: the package {source.root!r} has no file {str(source.path)!r}")


def _existing(source: Source, path: Path) -> Path:
    try:
        found = path.is_file()
    except (OSError, ValueError) as error:
        raise SourceError(f"source {source.uri!r}: {path} cannot be read: {error}") from error
    if not found:
        raise SourceError(f"source {source.uri!r}: there is no file {path}")
    return path
