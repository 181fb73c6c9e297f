"""LoRA adapters of a Model: files for the engine, by the names that clients use."""

from __future__ import annotations

from corral_core.base.errors import SourceError
from corral_core.base.names import canonical_name
from corral_core.model.model import ModelSpec
from corral_core.sources.locate import WeightsRoots, locate_adapter, pulled_snapshot
from corral_core.sources.snapshot import FileRole, snapshot_file
from corral_core.sources.uri import parse_source
from corral_server.runner.engine.contexts import AdapterFile
from corral_server.system.digests import check_digest

SOURCE_ADAPTER = ""
"""Name of the adapter that the Model's source brings: it applies to all requests that name no other one."""


def adapter_files(spec: ModelSpec, roots: WeightsRoots) -> dict[str, AdapterFile]:
    """Return each file by its canonical name. Raises SourceError for a missing file and for a wrong digest."""
    files = _source_adapter(spec, roots)
    for adapter in spec.adapters:
        path = locate_adapter(parse_source(adapter.source), roots)
        if adapter.sha256 is not None:
            check_digest([path], adapter.sha256)
        files[canonical_name(adapter.name)] = AdapterFile(path, adapter.scale)
    return files


def _source_adapter(spec: ModelSpec, roots: WeightsRoots) -> dict[str, AdapterFile]:
    snapshot = pulled_snapshot(parse_source(spec.source), roots)
    if snapshot is None or roots.store is None:
        return {}
    names = [file.name for file in snapshot.files if file.role is FileRole.ADAPTER]
    if len(names) > 1:
        raise SourceError(f"source {spec.source!r} brings {len(names)} adapters: only one can be applied to a model")
    return {SOURCE_ADAPTER: AdapterFile(snapshot_file(roots.store, snapshot.id, names[0]))} if names else {}
