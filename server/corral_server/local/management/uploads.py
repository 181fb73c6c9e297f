"""Weights that clients uploaded, as sources of the store of pulled weights.

A Model names them by the path of the blob, ``file:///<store>/blobs/sha256-<hex>``. A snapshot of this URI protects the
blob from every collection, and ``corral cache ls`` lists it. The snapshot's pin is the folder of the Models, so that
servers with different folders share a store: each removes its own snapshots only, and a blob goes with the last one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import quote

from corral_core.sources.snapshot import FileRole, Snapshot, SnapshotFile, is_sha256, snapshot_id
from corral_server.pull.store import WeightsStore

CLAIM_AGE: Final = 24 * 3600.0
"""Seconds for which a blob is kept for the client that uploaded it or asked for it."""
_FILE_NAME: Final = "upload.gguf"


class UploadedWeights:
    """Uploaded weights of the Models in ``folder``."""

    def __init__(self, store: WeightsStore, folder: Path) -> None:
        self._store = store
        self._pin = str(folder)
        self._prefix = f"file://{quote(str(store.root.resolve()))}/blobs/sha256-"
        self._claimed: dict[str, float] = {}

    def uri(self, sha256: str) -> str:
        """Return the source URI of a blob."""
        return self._prefix + sha256

    def claim(self, sha256: str) -> bool:
        """Return whether the store has the blob, and keep it for a client that names it in a Model soon.

        Raises PullError and SourceError if the store cannot be written.
        """
        path = self._store.blob(sha256)
        if path is None:
            return False
        uri = self.uri(sha256)
        self._claimed[uri] = time.monotonic()
        files = [SnapshotFile(_FILE_NAME, FileRole.WEIGHTS, sha256, path.stat().st_size)]
        self._store.publish(uri, self._pin, files=files)
        return True

    def is_claimed(self, uri: str) -> bool:
        """Return whether a client has uploaded the blob or asked for it of late, and no Model has used it since."""
        return time.monotonic() - self._claimed.get(uri, float("-inf")) < CLAIM_AGE

    def note_used(self, uris: Iterable[str]) -> None:
        """Note the sources that Models use."""
        for uri in uris:
            self._claimed.pop(uri, None)

    def has_uri(self, uri: str) -> bool:
        return uri.startswith(self._prefix) and is_sha256(uri.removeprefix(self._prefix))

    def snapshot_id(self, uri: str) -> str:
        return snapshot_id(uri, self._pin)

    def owns(self, snapshot: Snapshot) -> bool:
        return snapshot.pin == self._pin and self.has_uri(snapshot.uri)
