"""GGUF files in the layers of an artifact or image, found without downloading the layers.

- A layer is a GGUF file by its media type, its path or its first bytes, or a tar archive, whose headers are read as far
  as that is possible (``distribution.archive_listing``).
- Layers of an image lie over one another: a later file replaces an earlier one of the same path, and whiteouts delete.
- At most ``MAX_LOOKS`` parts of layers are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Final

from corral_core.base.errors import SourceError
from corral_core.sources.locate import MAX_PARTS
from corral_server.pull.distribution.archive_listing import Listing, list_members
from corral_server.pull.distribution.client import RepositoryClient
from corral_server.pull.distribution.manifests import Descriptor, Manifest
from corral_server.pull.remote_files import Archive, FileRole
from corral_server.pull.resolvers.oci_layers import KITOPS_PART, LayerKind, archive_format, is_projector, layer_kind
from corral_server.pull.resolvers.split_files import parse_split

IMAGE_FOLDER: Final = "models/"
"""Folder of an image that holds the model."""
MAX_LOOKS: Final = 512
_SMALLEST: Final = 512
"""Bytes; a layer that is smaller holds no GGUF file."""
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A GGUF file; ``path`` is its path in the artifact, or empty. ``member`` is set in an archive.

    ``member_size`` is its size in bytes, None if it is not known.
    """

    path: str
    layer: Descriptor
    projector: bool = False
    archive: Archive = Archive.NONE
    member: str = ""
    member_size: int | None = None

    @property
    def name(self) -> str:
        """Last part of the path."""
        return PurePosixPath(self.path).name

    @property
    def role(self) -> FileRole:
        """Role by the kind of the layer and the name of the file."""
        if self.projector or is_projector(self.path):
            return FileRole.PROJECTOR
        if self.layer.media_type.startswith(KITOPS_PART) and parse_split(self.name) is None:
            return FileRole.ADAPTER
        return FileRole.WEIGHTS


class ArtifactContents:
    """What the layers hold.

    ``files`` are the GGUF files. ``unread`` are archives without a known GGUF file whose end was not seen; their
    ``member`` is a pattern. ``seen`` are the paths of all files in archives.
    """

    def __init__(self, client: RepositoryClient, manifest: Manifest) -> None:
        self._client = client
        self._count = len(manifest.layers)
        self._looks = 0
        self.layers = [(layer, self._kind(layer)) for layer in manifest.layers]
        self.seen: list[str] = []
        self.unread: list[FoundFile] = []
        self.files = self._files()

    def _kind(self, layer: Descriptor) -> LayerKind:
        """Return the kind of a layer; its first bytes decide what media type and path do not tell."""
        kind = layer_kind(layer)
        if kind is not LayerKind.UNKNOWN or layer.size < _SMALLEST:
            return kind
        try:
            is_gguf = self._look(layer, 0, 4) == b"GGUF"
        except SourceError:
            is_gguf = layer.media_type.endswith(".weight.v1.raw")
        if is_gguf:
            return LayerKind.GGUF
        return LayerKind.IMAGE_LAYER if ".tar" in layer.media_type else LayerKind.OTHER

    def _look(self, layer: Descriptor, start: int, length: int) -> bytes:
        """Return a part of a layer. Raises SourceError if the registry cannot send it, or after too many."""
        self._looks += 1
        if self._looks > MAX_LOOKS:
            raise SourceError(f"the artifact has too many layers to look into: {self._count}")
        return self._client.part(layer, start, length=length)

    def _files(self) -> list[FoundFile]:
        found: dict[str, FoundFile] = {}
        for layer, kind in self.layers:
            if kind in (LayerKind.GGUF, LayerKind.PROJECTOR):
                found[layer.path or layer.digest] = FoundFile(layer.path, layer, kind is LayerKind.PROJECTOR)
            elif kind in (LayerKind.ARCHIVE, LayerKind.IMAGE_LAYER) and layer.size >= _SMALLEST:
                self._add_members(found, layer, "" if kind is LayerKind.ARCHIVE else IMAGE_FOLDER)
        return list(found.values())

    def _add_members(self, found: dict[str, FoundFile], layer: Descriptor, folder: str) -> None:
        """Add the GGUF files in a folder of an archive, and remove what its whiteouts delete."""
        archive = archive_format(layer)
        if archive is None:
            return
        listing = list_members(partial(self._look, layer), archive, size=layer.size)
        sizes = {member.path: member.size for member in listing.members}
        paths = list(sizes)
        self.seen += paths
        deleted = [target for path in paths if (target := _whiteout(path)) is not None]
        for path in [path for path in found if any(f"{path}/".startswith(f"{target}/") for target in deleted)]:
            del found[path]
        own = [path for path in _gguf_paths(listing) if path.startswith(folder)]
        found.update(
            {path: FoundFile(path, layer, archive=archive, member=path, member_size=sizes.get(path)) for path in own}
        )
        if not own and not listing.complete:
            self.unread.append(FoundFile(layer.path, layer, archive=archive, member=f"{folder}*.gguf"))


def _gguf_paths(listing: Listing) -> Iterator[str]:
    """Yield the paths of GGUF files.

    The parts of a split file lie in one folder, so the other parts are expected behind the end of what was read.
    """
    for member in listing.members:
        if member.gguf:
            split = None if listing.complete else parse_split(member.path)
            yield from (member.path,) if split is None or split.count > MAX_PARTS else split.parts()


def _whiteout(path: str) -> str | None:
    """Return what a whiteout deletes (image-spec, layer.md, "Whiteouts"): a path, or all that a folder had before."""
    file = PurePosixPath(path)
    if file.name == _OPAQUE:
        return str(file.parent)
    name = file.name.removeprefix(_WHITEOUT)
    return str(file.with_name(name)) if name not in ("", file.name) else None
