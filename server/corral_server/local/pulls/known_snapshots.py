"""Snapshots of a store by source, and those that this process uses.

What was pulled last is what a source means, until it is pulled again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from corral_core.base.errors import SourceError
from corral_core.sources.snapshot import Snapshot, hold_snapshot
from corral_server.pull.store import WeightsStore
from corral_server.pull.stored import stored_sources


def latest_snapshots(store: WeightsStore) -> dict[str, Snapshot]:
    """Return the complete snapshot of each source that was published or used last. Damaged ones do not count."""
    return {source.snapshot.uri: source.snapshot for source in stored_sources(store) if source.complete}


class HeldSnapshots:
    """Snapshots that Models use: no collection of any process removes them (``hold_snapshot``)."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._held: dict[str, int] = {}

    def hold(self, ids: Collection[str]) -> None:
        """Hold these snapshots and release all others."""
        for id in [id for id in self._held if id not in ids]:
            os.close(self._held.pop(id))
        for id in ids:
            if id not in self._held:
                with contextlib.suppress(SourceError):  # it was removed meanwhile: its Model reports the problem
                    self._held[id] = hold_snapshot(self._store, id)
