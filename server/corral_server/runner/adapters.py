"""The Model's LoRA adapters: from their sources to files that the engine loads, by the names that clients ask for."""

from __future__ import annotations

from pathlib import Path

from corral_core.model import ModelSpec
from corral_core.names import canonical
from corral_core.source import locate, parse_source
from corral_server.runner.contexts import AdapterFile
from corral_server.runner.digests import check_digest


def adapter_files(spec: ModelSpec, pvc_root: Path) -> dict[str, AdapterFile]:
    """Each file by its canonical name. Raises SourceError for one that is missing or is not what it should be."""
    files = {}
    for adapter in spec.adapters:
        path = locate(parse_source(adapter.source), pvc_root)
        if adapter.sha256 is not None:
            check_digest(path, adapter.sha256)
        files[canonical(adapter.name)] = AdapterFile(path, adapter.scale)
    return files
