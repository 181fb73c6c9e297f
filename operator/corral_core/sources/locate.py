"""Files of a source on this machine.

- A Python package is located, never imported.
- A claim is mounted at ``WeightsRoots.claim``, and so is the image of an ``oci://`` source that is not pulled; a
  symbolic link that leaves the volume is an error.
- Any other remote source is located in the store by the snapshot that its Model has pinned.
- A split GGUF file is located by its first part, and only if all parts exist: llama.cpp opens the others itself.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from corral_core.base.errors import SourceError
from corral_core.sources.forms import ClaimSource, FileSource, OciSource, PackageSource, RemoteSource, Source
from corral_core.sources.snapshot import FileRole, Snapshot, hold_snapshot, read_snapshot, snapshot_file

MAX_PARTS: Final = 1000
"""Parts of a split GGUF file; the largest models have fewer than a hundred."""
_PART: Final = re.compile(r"(?P<prefix>.*)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf", re.DOTALL)
"""File name of a part as of ``llama_split_path`` in llama.cpp's ``src/llama.cpp``."""


@dataclass(frozen=True, slots=True)
class WeightsRoots:
    """Folders that sources refer to.

    - ``claim``: where the claim of ``pvc://`` sources, or an image, is mounted.
    - ``store``: the store of pulled weights, None if there is none.
    - ``snapshots``: snapshot ids in the store by the URI of the source.
    - ``image_path``: path of the weights in the image that is mounted, empty if none is.
    """

    claim: Path = Path("/weights")
    store: Path | None = None
    snapshots: Mapping[str, str] = field(default_factory=dict)
    image_path: str = ""


DEFAULT_ROOTS: Final = WeightsRoots()


def locate_weights(source: Source, roots: WeightsRoots = DEFAULT_ROOTS) -> Path:
    """Locate the weights on this machine: a file, or the first part of a split file.

    Raises SourceError if a file or a part is missing, or if a remote source has not been pulled yet.
    """
    match source:
        case FileSource():
            return _with_parts(source, Path(source.path))
        case ClaimSource():
            return _in_volume(source, roots.claim, source.path)
        case OciSource() if roots.image_path:
            return _in_volume(source, roots.claim, PurePosixPath(roots.image_path))
        case PackageSource():
            return _with_parts(source, _in_package(source))
        case _:
            return _in_store(source, roots, roles=(FileRole.WEIGHTS,))


def locate_adapter(source: Source, roots: WeightsRoots = DEFAULT_ROOTS) -> Path:
    """Locate a LoRA adapter. A pulled source that has weights and an adapter stands for its adapter."""
    if isinstance(source, FileSource | ClaimSource | PackageSource):
        return locate_weights(source, roots)
    return _in_store(source, roots, roles=(FileRole.ADAPTER, FileRole.WEIGHTS))


def locate_projector(source: Source, roots: WeightsRoots = DEFAULT_ROOTS) -> Path:
    """Locate a projector. A pulled source that has weights and a projector stands for its projector."""
    if isinstance(source, FileSource | ClaimSource | PackageSource):
        return locate_weights(source, roots)
    return _in_store(source, roots, roles=(FileRole.PROJECTOR, FileRole.WEIGHTS))


def pulled_snapshot(source: Source, roots: WeightsRoots = DEFAULT_ROOTS) -> Snapshot | None:
    """Return the snapshot of a pulled source, None for a local one and for one that has not been pulled yet.

    Raises SourceError if the snapshot is damaged.
    """
    id = roots.snapshots.get(source.uri)
    if roots.store is None or id is None or isinstance(source, FileSource | ClaimSource | PackageSource):
        return None
    return read_snapshot(roots.store, id)


@contextmanager
def held_sources(roots: WeightsRoots) -> Iterator[None]:
    """Protect the pulled sources from collection while the context lasts; one that is missing is ignored."""
    with ExitStack() as stack:
        if roots.store is not None:
            for id in set(roots.snapshots.values()):
                with suppress(SourceError):
                    stack.callback(os.close, hold_snapshot(roots.store, id))
        yield


def weight_parts(path: Path) -> list[Path]:
    """Return all parts of weights whose first part is ``path``; a file that is not split is its only part.

    Raises SourceError if a part is missing or ``path`` is not the first part.
    """
    names = part_names(path.name)
    parts = [path.with_name(name) for name in names]
    missing = [part.name for part in parts[1:] if not _is_file(part)]
    if missing:
        listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise SourceError(
            f"{path} is the first of {len(parts)} parts and {len(missing)} of the others are missing in its folder: "
            f"{listed}; copy all parts into one folder"
        )
    return parts


def part_names(name: str) -> list[str]:
    """Return the names of all parts of a split file by the name of the first; one that is not split has one part.

    Raises SourceError if the name is that of another part or has an invalid number of parts.
    """
    match = _PART.fullmatch(name)
    if match is None:
        return [name]
    number, count = int(match["number"]), int(match["count"])
    if not 1 <= count <= MAX_PARTS or number > count:
        raise SourceError(f"{name}: a split file has 1 to {MAX_PARTS} parts, numbered from 00001")
    names = [f"{match['prefix']}-{part:05}-of-{count:05}.gguf" for part in range(1, count + 1)]
    if number != 1:
        raise SourceError(f"{name} is part {number} of {count} of a split file; name the first part, {names[0]}")
    return names


def _with_parts(source: Source, path: Path) -> Path:
    if not _is_file(path):
        raise SourceError(f"source {source.uri!r}: {path} does not exist or cannot be read")
    try:
        weight_parts(path)
    except SourceError as error:
        raise SourceError(f"source {source.uri!r}: {error}") from None
    return path


def _in_volume(source: ClaimSource | OciSource, mount: Path, file: PurePosixPath) -> Path:
    path = _with_parts(source, mount / file)
    for part in weight_parts(path):
        if not part.resolve().is_relative_to(mount.resolve()):
            raise SourceError(f"source {source.uri!r}: {part} is a symbolic link that leaves the volume")
    return path


def _in_package(source: PackageSource) -> Path:
    """Locate a file of a package; only the top-level package is looked up, which runs none of its code."""
    top, *below = source.package.split(".")
    try:
        spec: importlib.machinery.ModuleSpec | None = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise SourceError(
            f"source {source.uri!r}: the Python package {top!r} is not installed; "
            "install the distribution that contains it (with pip's --no-deps if only its files are needed)"
        )
    for folder in (Path(folder, *below) for folder in spec.submodule_search_locations or ()):
        if _is_file(folder / source.path):
            return folder / source.path
    raise SourceError(f"source {source.uri!r}: the package {source.package!r} has no file {str(source.path)!r}")


def _in_store(source: RemoteSource, roots: WeightsRoots, *, roles: tuple[FileRole, ...]) -> Path:
    snapshot_id = roots.snapshots.get(source.uri)
    if roots.store is None or snapshot_id is None:
        raise SourceError(f"source {source.uri!r} has not been pulled yet")
    snapshot = read_snapshot(roots.store, snapshot_id)
    for role in roles:
        files = [file.name for file in snapshot.files if file.role == role]
        if files:
            return _with_parts(source, snapshot_file(roots.store, snapshot.id, files[0]))
    raise SourceError(f"source {source.uri!r}: the pulled snapshot {snapshot.id} has no {roles[0]} file")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
