"""Downloads of a good server: in parallel, once for a digest, within room and rate limit."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from corral_core.sources.snapshot import SnapshotFile, blob_path
from corral_server.pull.download.published import note_path
from corral_server.pull.download.rates import RateLimit
from corral_server.pull.errors import StoreFull
from corral_server.pull.progress import PullProgress, PullStage
from corral_server.pull.remote_files import HttpLocation
from corral_server.pull.store import WeightsStore
from tests.pull.download.range_server import RangeServer
from tests.pull.download.small_downloads import CONTENT, DIGEST, FILE, OPTIONS, WANTED, assert_complete, fetch
from tests.support.gguf_files import gguf_bytes
from tests.support.waiting import until


def test_a_file_is_downloaded_in_parallel_and_read_once(store: WeightsStore) -> None:
    server = RangeServer(CONTENT)
    assert fetch(store, server) == WANTED
    assert_complete(store)
    assert len(server.requests) > 4
    until(lambda: server.open_streams == 0)


def test_a_blob_that_is_there_is_not_downloaded(store: WeightsStore) -> None:
    fetch(store, RangeServer(CONTENT))
    server = RangeServer(CONTENT)
    assert fetch(store, server, replace(FILE, location=HttpLocation("https://other/x"), name="x.gguf")).name == "x.gguf"
    assert server.requests == []


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("known", ["all", "size", "digest", "nothing"])
@pytest.mark.parametrize("size", [0, 1, 3_000, 16_000, 16_001, len(CONTENT)])
def test_servers_without_ranges_or_sizes(tmp_path: Path, *, ranges: bool, sized: bool, known: str, size: int) -> None:
    content = (gguf_bytes() if known == "nothing" and not sized else b"") + CONTENT[:size]
    digest = hashlib.sha256(content).hexdigest()
    file = replace(
        FILE, size=size if known in ("all", "size") else None, sha256=digest if known in ("all", "digest") else None
    )
    store = WeightsStore(tmp_path)
    found = fetch(store, RangeServer(content, ranges=ranges, sized=sized), file)
    assert (found.sha256, found.size) == (digest, len(content))
    assert blob_path(store.root, digest).read_bytes() == content
    assert list(store.partial.iterdir()) == []


def test_two_sources_of_one_digest_are_one_download(store: WeightsStore) -> None:
    server = RangeServer(CONTENT)
    started, go = threading.Event(), threading.Event()

    def hold(position: int) -> None:
        if position > 30_000:
            started.set()
            assert go.wait(30)

    server.on_read = hold
    other = RangeServer(CONTENT)
    shown: list[PullProgress] = []
    results: list[SnapshotFile] = []

    def show(progress: PullProgress) -> None:
        shown.append(progress)
        if progress.completed:
            go.set()

    first = threading.Thread(target=lambda: results.append(fetch(store, server, options=replace(OPTIONS, stall=60))))
    first.start()
    assert started.wait(10)
    file = replace(FILE, location=HttpLocation("https://other/file"), name="other.gguf")
    results.append(fetch(store, other, file, progress=show))
    first.join(30)
    assert {result.sha256 for result in results} == {DIGEST}
    assert other.requests == []
    assert 0 < max(progress.completed for progress in shown) < len(CONTENT)
    assert_complete(store)


def test_a_file_that_does_not_fit_is_refused_before_the_first_byte(store: WeightsStore) -> None:
    store.size_limit = 50_000
    server = RangeServer(CONTENT)
    with pytest.raises(StoreFull, match=r"model.gguf needs 100 KiB; 48.8 KiB are free in .* \(size limit 48.8 KiB\)"):
        fetch(store, server)
    assert server.requests == []
    with pytest.raises(StoreFull, match="needs 100 KiB"):
        fetch(store, server, replace(FILE, size=None, sha256=None))
    assert server.sent == 0


def test_progress_reaches_the_end(store: WeightsStore) -> None:
    shown: list[PullProgress] = []
    server = RangeServer(CONTENT)
    server.on_read = lambda position: time.sleep(0.001)  # the latency of a server: a rate needs a duration
    fetch(store, server, options=replace(OPTIONS, progress_interval=0.0), progress=shown.append)
    assert shown[0].stage is PullStage.PULLING
    assert shown[-1] == replace(shown[-1], stage=PullStage.PUBLISHING, completed=len(CONTENT), total=len(CONTENT))
    pulled = [item.completed for item in shown if item.stage is PullStage.PULLING]
    assert pulled == sorted(pulled)
    assert any(item.rate > 0 for item in shown)


def test_the_rate_limit_holds_for_all_connections(store: WeightsStore) -> None:
    started = time.monotonic()
    fetch(store, RangeServer(CONTENT), options=replace(OPTIONS, rate_limit=200_000))
    assert time.monotonic() - started > 0.2


@pytest.mark.parametrize("connections", [1, 8])
def test_the_rate_limit_is_reached(connections: int) -> None:
    """Connections take turns on a clock of the test: each waits for its delay, and reading takes no time."""
    now = 0.0
    limit = RateLimit(100_000, clock=lambda: now)
    waiting = [0.0] * connections
    sent = 0
    while sent < 1_000_000:
        now = min(waiting)
        count = limit.chunk(2**20)
        waiting[waiting.index(now)] = now + limit.delay(count)
        sent += count
    assert 9.5 < now <= 10


def test_a_file_of_unknown_digest_that_another_puller_publishes_meanwhile_is_downloaded_once(
    store: WeightsStore,
) -> None:
    server = RangeServer(CONTENT, version="v1")
    file = replace(FILE, sha256=None, version="v1")
    waited = threading.Event()

    def hold(position: int) -> None:
        if position >= 30_000:
            assert waited.wait(30)

    server.on_read = hold
    results: list[SnapshotFile] = []
    first = threading.Thread(
        target=lambda: results.append(fetch(store, server, file, options=replace(OPTIONS, stall=60)))
    )
    first.start()
    until(lambda: server.sent >= 30_000)
    results.append(fetch(store, server, file, progress=lambda progress: waited.set()))
    first.join(30)
    assert results == [WANTED, WANTED]
    assert server.sent == len(CONTENT)
    assert_complete(store)


def test_a_blob_of_another_version_is_not_used(store: WeightsStore) -> None:
    file = replace(FILE, sha256=None, size=None, version="v1")
    fetch(store, RangeServer(CONTENT, version="v1"), file)
    other = CONTENT[::-1]
    found = fetch(store, RangeServer(other, version="v2"), replace(file, version="v2"))
    assert found.sha256 == hashlib.sha256(other).hexdigest()


def test_a_blob_of_an_unknown_version_is_not_used(store: WeightsStore) -> None:
    file = replace(FILE, sha256=None)
    fetch(store, RangeServer(CONTENT), file)
    other = CONTENT[::-1]
    assert fetch(store, RangeServer(other), file).sha256 == hashlib.sha256(other).hexdigest()


@pytest.mark.parametrize("note", [b"", b"x" * 100, b"../" * 30, b"\xff" * 64])
def test_a_damaged_note_of_a_published_file_is_none(store: WeightsStore, note: bytes) -> None:
    file = replace(FILE, sha256=None, version="v1")
    fetch(store, RangeServer(CONTENT, version="v1"), file)
    note_path(store.root, file).write_bytes(note)
    server = RangeServer(CONTENT, version="v1")
    assert fetch(store, server, file) == WANTED
    assert server.sent == len(CONTENT)


def test_a_blob_of_another_folder_is_verified_and_linked(tmp_path: Path) -> None:
    ollama = tmp_path / "ollama"
    ollama.mkdir()
    path = ollama / f"sha256-{DIGEST}"
    path.write_bytes(CONTENT)
    store = WeightsStore(tmp_path / "store", also_read=[ollama])
    server = RangeServer(CONTENT)
    assert fetch(store, server) == WANTED
    assert server.requests == []
    assert blob_path(store.root, DIGEST).samefile(path)


def test_a_damaged_blob_of_another_folder_is_not_linked(tmp_path: Path) -> None:
    (tmp_path / f"sha256-{DIGEST}").write_bytes(CONTENT[:-1] + b"x")
    store = WeightsStore(tmp_path / "store", also_read=[tmp_path])
    assert fetch(store, RangeServer(CONTENT)) == WANTED
    assert blob_path(store.root, DIGEST).read_bytes() == CONTENT


def test_an_error_of_the_disk_is_an_error_of_the_pull(store: WeightsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: memoryview, offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreFull, match="are free in"):
        fetch(store, RangeServer(CONTENT))


def test_the_other_blobs_of_a_pull_are_kept_while_a_file_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"sha256-{DIGEST}").write_bytes(CONTENT)
    store, kept = WeightsStore(tmp_path / "store", also_read=[tmp_path]), list[str]()
    monkeypatch.setattr(store, "keep", lambda sha256="": kept.append(sha256))
    fetch(store, RangeServer(CONTENT))
    assert kept == ["", DIGEST]
