"""Removal of weights that no Model uses any more.

- When a client deletes a Model, or replaces its sources, the weights that no other Model uses are removed, pulled ones
  too, as Ollama does. Those that a process still holds, such as a runner that is ending, and those whose blobs were
  touched within ``MINIMUM_AGE``, are removed later.
- Uploaded weights that no Model has used for ``UNUSED_AGE`` are removed, at the start and every hour. A Model that is
  absent for a while, because its file is moved for example, keeps its weights, and so does a new upload.
- Other pulled weights are removed by ``corral cache`` only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from typing import Final

from corral_core.model.model import ModelSpec
from corral_core.sources.snapshot import Snapshot
from corral_server.local.management.uploads import UploadedWeights
from corral_server.pull.collect import MINIMUM_AGE, remove_sources
from corral_server.pull.store import WeightsStore
from corral_server.pull.stored import StoredSource, stored_sources

UNUSED_AGE: Final = 24 * 3600.0
"""Seconds."""
_INTERVAL, _RETRY_INTERVAL = 3600.0, 30.0
"""Seconds between two calls of ``remove``: usually, and while something waits for its removal."""


class WeightsRemoval:
    """``forget`` makes the pulls of local mode forget a source, and returns what it was pulled as."""

    def __init__(self, store: WeightsStore, uploads: UploadedWeights, forget: Callable[[str], Snapshot | None]) -> None:
        self._store = store
        self._uploads = uploads
        self._forget = forget
        self._dropped: set[str] = set()

    @property
    def interval(self) -> float:
        """Seconds until ``remove`` is to be called again."""
        return _RETRY_INTERVAL if self._dropped else _INTERVAL

    def drop(self, before: ModelSpec, used: Collection[str]) -> None:
        """Note that the sources of a Model that a client deleted or replaced go, unless they are in ``used``."""
        for uri in set(spec_sources([before])).difference(used):
            if self._uploads.has_uri(uri):
                self._dropped.add(self._uploads.snapshot_id(uri))
            elif (snapshot := self._forget(uri)) is not None:
                self._dropped.add(snapshot.id)

    def remove(self, used: Collection[str]) -> list[str]:
        """Remove the weights that no source in ``used`` needs any more, and return their sources. Raises PullError.

        Blocks.
        """
        now, unneeded, present = datetime.now(UTC).timestamp(), dict[str, str](), set[str]()
        for source in stored_sources(self._store, strict=True):
            id, uri = source.snapshot.id, source.snapshot.uri
            present.add(id)
            if uri in used or self._uploads.is_claimed(uri):
                self._dropped.discard(id)
                if uri in used and self._uploads.owns(source.snapshot):
                    self._store.touch(id)
            elif self._removable(source, now):
                unneeded[id] = uri
        gone = remove_sources(self._store, unneeded) if unneeded else []
        self._dropped.intersection_update(present.difference(gone))
        return [unneeded[id] for id in gone]

    def _removable(self, source: StoredSource, now: float) -> bool:
        if source.snapshot.id not in self._dropped:
            return self._uploads.owns(source.snapshot) and source.last_used <= now - UNUSED_AGE
        blobs = [self._store.blob(file.sha256) for file in source.snapshot.files]
        return all(blob is None or blob.stat().st_mtime <= now - MINIMUM_AGE for blob in blobs)


def spec_sources(specs: Iterable[ModelSpec]) -> Iterable[str]:
    """Yield the sources of Models, of their adapters and of their projectors."""
    for spec in specs:
        yield spec.source
        yield from (adapter.source for adapter in spec.adapters)
        if spec.projector is not None:
            yield spec.projector
