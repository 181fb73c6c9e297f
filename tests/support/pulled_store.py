"""Store of pulled weights with files of a test, as a pull would have left it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from corral_core.contracts.source_defaults import NO_DEFAULTS, SourceDefaults
from corral_core.sources.snapshot import FileRole, Snapshot, SnapshotFile, blob_path
from corral_server.pull.store import WeightsStore


def publish(
    root: Path,
    uri: str,
    files: Mapping[Path, FileRole],
    *,
    pin: str = "1",
    defaults: SourceDefaults = NO_DEFAULTS,
) -> Snapshot:
    """Copy the files into the store's blobs and publish them as the snapshot of the source."""
    store = WeightsStore(root)
    store.prepare()
    stored = []
    for path, role in files.items():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copyfile(path, blob_path(root, digest))
        stored.append(SnapshotFile(path.name, role, digest, path.stat().st_size))
    return store.publish(uri, pin, files=stored, defaults=defaults)


def store_settings(root: Path, *snapshots: Snapshot) -> dict[str, str]:
    """Return the environment that a runner finds these snapshots by."""
    ids = {snapshot.uri: snapshot.id for snapshot in snapshots}
    return {"CORRAL_STORE": str(root), "CORRAL_SNAPSHOTS": json.dumps(ids)}
