"""Model metadata from a Model's files: the weights, the projector and the LoRA adapters.

- Of weights and projector only the header is read, of the adapters, which are loaded as a whole, only the size.
- Metadata is valid for these files only: after the list of adapters or the projector has changed, it is read again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from corral_core.base.errors import GGUFError
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.model.model import ModelSpec
from corral_core.sources.locate import (
    WeightsRoots,
    locate_adapter,
    locate_projector,
    locate_weights,
    pulled_snapshot,
)
from corral_core.sources.snapshot import FileRole
from corral_core.sources.uri import parse_source
from corral_core.weights.gguf_metadata import ComputePlanner, read_metadata, with_projector
from corral_core.weights.projector import ProjectorMetadata, read_projector


def read_model_metadata(spec: ModelSpec, roots: WeightsRoots, *, plan: ComputePlanner | None = None) -> ModelMetadata:
    """Read the metadata of a Model's files on this machine. Raises SourceError, GGUFError and OSError."""
    weights = read_metadata(locate_weights(parse_source(spec.source), roots), plan)
    projector = find_projector(spec, roots)
    if projector is not None:
        weights = with_projector(weights, projector.metadata)
    return with_spec(weights, spec, adapters_size(spec, roots))


@dataclass(frozen=True, slots=True)
class FoundProjector:
    """The file of a projector, and what its header says."""

    path: Path
    metadata: ProjectorMetadata


def find_projector(spec: ModelSpec, roots: WeightsRoots) -> FoundProjector | None:
    """Return the projector of ``spec.projector``, else the one that the source brings, else None.

    One of the source that llama.cpp cannot use for images is left out: the model answers text without it. Raises
    SourceError if a file is missing, and GGUFError for a ``spec.projector`` that is no projector.
    """
    if spec.projector is not None:
        path = locate_projector(parse_source(spec.projector), roots)
        return FoundProjector(path, read_projector(path))
    source = parse_source(spec.source)
    snapshot = pulled_snapshot(source, roots)
    if snapshot is None or not any(file.role is FileRole.PROJECTOR for file in snapshot.files):
        return None
    path = locate_projector(source, roots)
    try:
        return FoundProjector(path, read_projector(path))
    except GGUFError:
        return None


def with_spec(metadata: ModelMetadata, spec: ModelSpec, adapters: int) -> ModelMetadata:
    """Add the identity of the Model's files and the size of its adapters in bytes."""
    return replace(
        metadata,
        source=spec.source,
        sha256=spec.sha256 or "",
        adapters_digest=adapters_digest(spec),
        adapters_size=adapters,
    )


def matches_spec(metadata: ModelMetadata, spec: ModelSpec) -> bool:
    """Whether the metadata is complete and was read from this spec's files."""
    read_for = metadata.source, metadata.sha256, metadata.adapters_digest
    return metadata.dimensions is not None and read_for == (spec.source, spec.sha256 or "", adapters_digest(spec))


def adapters_size(spec: ModelSpec, roots: WeightsRoots) -> int:
    """Sum the sizes of the adapters in bytes. Raises SourceError if one is missing, and OSError."""
    return sum(locate_adapter(parse_source(one.source), roots).stat().st_size for one in spec.adapters)


def adapters_digest(spec: ModelSpec) -> str:
    """Return a short digest of the list of adapters and the projector; empty without both."""
    if not spec.adapters and spec.projector is None:
        return ""
    files = [[one.source, one.sha256 or ""] for one in spec.adapters]
    files += [[spec.projector]] if spec.projector is not None else []
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16]
