"""Metadata of remote weights and projectors, read by ranges before the download.

Weights that cannot be served are errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from corral_core.base.errors import GGUFError, SourceError
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.sources.snapshot import FileRole
from corral_core.sources.uri import shown_uri
from corral_core.weights.gguf import read_header_from
from corral_core.weights.gguf_metadata import ComputePlanner, read_metadata_from
from corral_core.weights.projector import ProjectorMetadata, projector_from_header
from corral_core.weights.split_header import OpenPart
from corral_server.pull.archives.header import ArchivedHeader, OutOfReach
from corral_server.pull.remote_files import Archive, RangeReader, RemoteFile, ResolvedSource
from corral_server.pull.remote_header import RemoteHeader


def read_remote_metadata(
    resolved: ResolvedSource,
    reader: RangeReader,
    local: Callable[[RemoteFile], Path | None],
    *,
    plan: ComputePlanner | None = None,
) -> ModelMetadata | None:
    """Read the metadata of the source's weights; ``size`` counts all parts.

    ``local`` returns a file that is on this machine already. None if only the whole file shows the metadata: far behind
    the beginning of a compressed archive, or from a server that does not say a file's size. Raises SourceError for
    weights that cannot be served, and what ``reader`` raises.
    """
    weights = [file for file in resolved.files if file.role is FileRole.WEIGHTS]
    if not weights:
        return None
    with ExitStack() as stack:
        try:
            parts = [_open_part(file, reader, path=local(file), stack=stack) for file in weights]
            known = [part for part in parts if part is not None]
            return read_metadata_from(known, plan) if len(known) == len(parts) else None
        except OutOfReach:
            return None
        except GGUFError as error:
            raise SourceError(f"source {shown_uri(resolved.uri)!r}: {error}") from error


def read_remote_projector(
    resolved: ResolvedSource,
    reader: RangeReader,
    local: Callable[[RemoteFile], Path | None],
    *,
    roles: Sequence[FileRole],
) -> ProjectorMetadata | None:
    """Read the header of a projector: the first file of the first of these roles that the source has.

    None if there is no such file, and if only the whole file shows the header, as in ``read_remote_metadata``. Raises
    GGUFError for a file that is no projector for images, and what ``reader`` raises.
    """
    file = next((file for role in roles for file in resolved.files if file.role is role), None)
    if file is None:
        return None
    with ExitStack() as stack:
        try:
            part = _open_part(file, reader, path=local(file), stack=stack)
            if part is None:
                return None
            header = read_header_from(part.file, part.name, size=part.size)
        except OutOfReach:
            return None
    return projector_from_header(header, f"source {shown_uri(resolved.uri)!r}: {file.name}")


def translation_size(resolved: ResolvedSource, metadata: ModelMetadata) -> int:
    """Return the bytes that the store needs beside the pulled files for weights that a pull translates, else 0."""
    sizes = [file.stored_size for file in resolved.files if file.role is FileRole.WEIGHTS]
    known = [size for size in sizes if size is not None]
    return metadata.size if len(known) == len(sizes) and metadata.size != sum(known) else 0


def _open_part(file: RemoteFile, reader: RangeReader, *, path: Path | None, stack: ExitStack) -> OpenPart | None:
    if path is not None:
        return OpenPart(file.name, stack.enter_context(path.open("rb")), path.stat().st_size)
    if file.archive is not Archive.NONE:
        member = ArchivedHeader(reader, file)
        return OpenPart(file.name, member, member.size)
    header = RemoteHeader(reader, file)
    size = header.find_size()
    return OpenPart(file.name, header, size) if size is not None else None
