"""The parts of local mode by which clients create Models: files, blobs, and the removal of unused weights."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from corral_core.base.errors import CorralError
from corral_core.base.json_fields import JsonObject
from corral_core.model.resource import parse_model
from corral_core.sources.snapshot import Snapshot
from corral_core.sources.uri import shown_uri
from corral_server.gateway.management.management import Management
from corral_server.local.event_log import EventLog
from corral_server.local.files import ListedModel, ModelFiles
from corral_server.local.management.blobs import LocalBlobStore
from corral_server.local.management.config import ManagementConfig
from corral_server.local.management.model_store import FileModelStore
from corral_server.local.management.removal import WeightsRemoval, spec_sources
from corral_server.local.management.uploads import UploadedWeights
from corral_server.local.watch import Refresh
from corral_server.pull.store import WeightsStore


class LocalManagement:
    """``gateway`` is what the gateway uses of it. ``forget`` is that of the pulls."""

    def __init__(
        self,
        config: ManagementConfig,
        store: WeightsStore,
        log: EventLog,
        *,
        files: ModelFiles,
        refresh: Refresh,
        forget: Callable[[str], Snapshot | None],
    ) -> None:
        self._config = config
        self._log = log
        self._used: frozenset[str] = frozenset()
        self._wanted = asyncio.Event()
        self._uploads = UploadedWeights(store, config.folder)
        self._removal = WeightsRemoval(store, self._uploads, forget)
        models = FileModelStore(config.folder, files.file_of, refresh.applied, released=self._released)
        self.gateway = Management(models, config.policy, LocalBlobStore(store, self._uploads))

    def applied(self, models: Sequence[ListedModel]) -> set[str]:
        """Note the Models that are served now. Return the ids of the snapshots of uploads that they use."""
        self._used = frozenset(spec_sources(listed.model.spec for listed in models))
        self._uploads.note_used(self._used)
        return {self._uploads.snapshot_id(uri) for uri in self._used if self._uploads.has_uri(uri)}

    async def run(self) -> None:
        """Remove unused weights until cancelled."""
        while True:
            self._wanted.clear()
            try:
                for uri in await asyncio.to_thread(self._removal.remove, self._used):
                    self._log.event("weights_removed", source=shown_uri(uri))
            except CorralError as error:
                self._log.problem("weights_not_removed", reason=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._removal.interval):
                    await self._wanted.wait()

    async def _released(self, before: JsonObject) -> None:
        self._removal.drop(parse_model(before).spec, self._used)
        self._wanted.set()


def prepare_folder(folder: Path, log: EventLog, *, policy: str) -> None:
    """Create the folder of the created Models and log where it is. Without it the other Models are served."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.problem("models_folder", folder=str(folder), problem=f"it cannot be created: {error.strerror or error}")
    else:
        log.event("models_folder", folder=str(folder), create=policy)


def served_paths(paths: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Return the paths of the command line, then the folder of the created Models, once."""
    return (*(path for path in paths if path.resolve() != folder.resolve()), folder)
