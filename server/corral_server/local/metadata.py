"""Metadata of Models' weights before a load: from the GGUF headers, with the sizes of the adapters.

A header is read again only if a file changed, so reading is cheap at every read of the Model files. Of a source that is
pulled, the snapshot is read that the pulls of local mode name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from corral_core.base.errors import GGUFError, SourceError
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.contracts.source_defaults import NO_DEFAULTS, SourceDefaults
from corral_core.model.model import Model
from corral_core.model.remote_sources import remote_sources
from corral_core.sources.locate import WeightsRoots, locate_weights, weight_parts
from corral_core.sources.snapshot import Snapshot
from corral_core.sources.uri import parse_source
from corral_core.weights.files import adapters_size, find_projector, with_spec
from corral_core.weights.gguf_metadata import read_metadata, with_projector


@dataclass(frozen=True, slots=True)
class Weights:
    """``problem`` is why there is no metadata: the file is missing or not a GGUF file.

    ``missing`` are the sources that have not been pulled yet, ``snapshots`` the ids of those that are pulled, and
    ``defaults`` what the Model's source brings besides weights.
    """

    metadata: ModelMetadata | None
    problem: str | None = None
    missing: tuple[str, ...] = ()
    snapshots: Mapping[str, str] = field(default_factory=dict)
    defaults: SourceDefaults = NO_DEFAULTS


def nothing_pulled(_uri: str) -> Snapshot | None:
    """Return no snapshot: nothing is pulled."""
    return None


class MetadataReader:
    """Reads GGUF headers. It blocks, so it is called from a thread.

    ``snapshot`` returns what a source was pulled as into ``roots.store``.
    """

    def __init__(self, roots: WeightsRoots, snapshot: Callable[[str], Snapshot | None] = nothing_pulled) -> None:
        self._roots = roots
        self._snapshot = snapshot
        self._known: dict[Path, tuple[tuple[tuple[int, int], ...], Weights]] = {}

    def read(self, model: Model) -> Weights:
        """Read the metadata of a Model. Errors are in the result."""
        pulled = {uri: self._snapshot(uri) for uri in remote_sources(model.spec)}
        missing = tuple(uri for uri, snapshot in pulled.items() if snapshot is None)
        if missing:
            return Weights(None, missing=missing)
        ids = {uri: snapshot.id for uri, snapshot in pulled.items() if snapshot is not None}
        own = pulled.get(model.spec.source)
        weights = self._read(model, replace(self._roots, snapshots=ids))
        return replace(weights, snapshots=ids, defaults=own.defaults if own is not None else NO_DEFAULTS)

    def _read(self, model: Model, roots: WeightsRoots) -> Weights:
        try:
            path = locate_weights(parse_source(model.spec.source), roots)
            stamp = tuple((status.st_mtime_ns, status.st_size) for status in map(Path.stat, weight_parts(path)))
            adapters = adapters_size(model.spec, roots)
            projector = find_projector(model.spec, roots)
        except (GGUFError, SourceError, OSError) as error:
            return Weights(None, str(error))
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            known = self._known[path] = (stamp, _read(path))
        metadata = known[1].metadata
        if metadata is not None and projector is not None:
            metadata = with_projector(metadata, projector.metadata)
        return replace(known[1], metadata=with_spec(metadata, model.spec, adapters)) if metadata else known[1]


def _read(path: Path) -> Weights:
    try:
        return Weights(read_metadata(path))
    except (GGUFError, SourceError, OSError) as error:
        return Weights(None, str(error))
