"""Downloads of a small file from a server in memory, as the tests of this folder begin them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from corral_core.sources.snapshot import FileRole, SnapshotFile, blob_path
from corral_server.pull.download.downloader import Downloader
from corral_server.pull.download.options import DownloadOptions
from corral_server.pull.progress import PullProgress
from corral_server.pull.remote_files import HttpLocation, RemoteFile
from corral_server.pull.store import WeightsStore
from tests.pull.download.range_server import RangeServer

CONTENT = bytes(range(256)) * 400
DIGEST = hashlib.sha256(CONTENT).hexdigest()
OPTIONS = DownloadOptions(
    parallel=4,
    stall=0.2,
    attempts=5,
    first_delay=0.001,
    max_delay=0.01,
    save_interval=0.01,
    progress_interval=0.01,
    first_part=16_000,
    min_part=4_000,
    max_part=32_000,
    buffer=3_000,
)
FILE = RemoteFile("model.gguf", FileRole.WEIGHTS, HttpLocation("https://host/model"), len(CONTENT), DIGEST)
WANTED = SnapshotFile("model.gguf", FileRole.WEIGHTS, DIGEST, len(CONTENT))


def fetch(
    store: WeightsStore,
    server: RangeServer,
    file: RemoteFile = FILE,
    *,
    options: DownloadOptions = OPTIONS,
    refresh: Callable[[], RemoteFile] | None = None,
    cancel: threading.Event | None = None,
    progress: Callable[[PullProgress], None] = lambda progress: None,
) -> SnapshotFile:
    return Downloader(store, server, options=options, cancel=cancel).fetch(file, progress, refresh=refresh)


def assert_complete(store: WeightsStore) -> None:
    assert blob_path(store.root, DIGEST).read_bytes() == CONTENT
    assert list(store.partial.iterdir()) == []
