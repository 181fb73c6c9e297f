"""Puller with real HTTP: from a source to a snapshot, expired locations, changed files, full disks, hostile headers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from corral_core.base.errors import SourceError
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.sources.forms import Source
from corral_core.sources.snapshot import FileRole, snapshot_file
from corral_server.pull.credentials import NO_CREDENTIALS
from corral_server.pull.download.downloader import Downloader
from corral_server.pull.download.options import DownloadOptions
from corral_server.pull.errors import ContentError, LocationExpired, PullCancelled, StoreFull, TransientError
from corral_server.pull.http.settings import NetworkSettings
from corral_server.pull.network import NetworkTransports
from corral_server.pull.progress import PullProgress, PullStage
from corral_server.pull.puller import Puller
from corral_server.pull.remote_files import ByteStream, Location, ResolvedSource
from corral_server.pull.store import WeightsStore
from corral_server.pull.transports import Transports
from tests.support.gguf_split import split_gguf
from tests.support.ollama_registry import OllamaRegistry, ollama_registry, padded_weights, sha256
from tests.support.tiny_model import write_tiny_model

SIZE = 12 * 2**20
FAST = DownloadOptions(attempts=3, first_delay=0.01, max_delay=0.02)


class WatchedTransports:
    """Transports of the network whose calls a test sees and changes."""

    def __init__(self, registry: OllamaRegistry) -> None:
        network = NetworkSettings(plain_http_hosts=frozenset({registry.host}))
        self._network = NetworkTransports(network, NO_CREDENTIALS)
        self.pins: list[str] = []
        self.on_resolve: Callable[[ResolvedSource], ResolvedSource] = lambda resolved: resolved
        self.on_open: Callable[[int], None] = lambda start: None

    def resolve(self, source: Source, *, pin: str = "") -> ResolvedSource:
        self.pins.append(pin)
        return self.on_resolve(self._network.resolve(source, pin=pin))

    def open(self, location: Location, *, start: int = 0, end: int | None = None) -> ByteStream:
        self.on_open(start)
        return self._network.open(location, start=start, end=end)


@pytest.fixture
def registry() -> Iterator[OllamaRegistry]:
    with ollama_registry() as registry:
        yield registry


@pytest.fixture
def transports(registry: OllamaRegistry) -> WatchedTransports:
    return WatchedTransports(registry)


@pytest.fixture
def store(tmp_path: Path) -> WeightsStore:
    return WeightsStore(tmp_path / "store")


def puller(store: WeightsStore, transports: Transports, cancel: threading.Event | None = None) -> Puller:
    return Puller(store, transports, Downloader(store, transports, options=FAST, cancel=cancel))


def weights(folder: Path, *, seed: int = 1, size: int = SIZE) -> bytes:
    return padded_weights(write_tiny_model(folder, seed=seed), size)


def test_a_pull_publishes_files_and_defaults_and_a_second_one_makes_no_request(
    tmp_path: Path, registry: OllamaRegistry, transports: WatchedTransports, store: WeightsStore
) -> None:
    data = weights(tmp_path)
    digest = registry.push(data, system="be brief", template="{{ .Prompt }}", params={"top_k": 3})
    progress: list[PullProgress] = []
    found: list[ModelMetadata | None] = []
    snapshot = puller(store, transports).pull(
        registry.uri(), progress=progress.append, found=lambda _resolved, metadata: found.append(metadata)
    )
    assert snapshot.pin == "sha256:" + sha256(registry.manifests["/v2/library/tiny/manifests/latest"])
    assert [(file.role, file.sha256, file.size) for file in snapshot.files] == [(FileRole.WEIGHTS, digest, SIZE)]
    assert snapshot_file(store.root, snapshot.id, snapshot.files[0].name).read_bytes() == data
    assert (snapshot.defaults.system, snapshot.defaults.parameters) == ("be brief", {"top_k": 3})
    assert found[0] is not None
    assert (found[0].family, found[0].size) == ("llama", SIZE)
    assert (progress[0].stage, progress[-1].stage) == (PullStage.RESOLVING, PullStage.PUBLISHING)
    assert (progress[-1].completed, progress[-1].total) == (SIZE, SIZE)
    before = len(registry.requests)
    assert puller(store, transports).pull(registry.uri(), pin=snapshot.pin) == snapshot
    assert len(registry.requests) == before


def test_the_header_is_read_by_ranges_before_the_download(
    tmp_path: Path, registry: OllamaRegistry, transports: WatchedTransports, store: WeightsStore
) -> None:
    registry.push(weights(tmp_path))
    metadata = puller(store, transports).inspect(puller(store, transports).resolve(registry.uri()))
    assert metadata is not None
    assert metadata.context_length == 2048
    assert registry.sent <= 2 * 2**20


def test_a_file_that_is_no_model_is_refused_before_the_download(
    registry: OllamaRegistry, transports: WatchedTransports, store: WeightsStore
) -> None:
    registry.push(b"<html>not a model</html>" * 2**17)
    with pytest.raises(SourceError, match="GGUF"):
        puller(store, transports).pull(registry.uri())
    assert registry.sent <= 2 * 2**20
    assert not list(store.root.glob("snapshots/*"))


def test_expired_locations_are_resolved_again_at_the_same_pin(
    tmp_path: Path, registry: OllamaRegistry, transports: WatchedTransports, store: WeightsStore
) -> None:
    digest = registry.push(weights(tmp_path))
    expired = iter([True, False, False, True])

    def expire(_start: int) -> None:
        if next(expired, False):
            raise LocationExpired("the URL has expired")

    transports.on_open = expire
    snapshot = puller(store, transports).pull(registry.uri())
    assert snapshot.files[0].sha256 == digest
    assert transports.pins[0] == ""
    assert len(transports.pins) > 1
    assert set(transports.pins[1:]) == {snapshot.pin}


def test_a_moved_tag_does_not_change_a_pinned_pull(
    tmp_path: Path, registry: OllamaRegistry, transports: WatchedTransports, store: WeightsStore
) -> None:
    digest = registry.push(weights(tmp_path))
    old = registry.manifests["/v2/library/tiny/manifests/latest"]
    pin = f"sha256:{sha256(old)}"
    registry.manifests[f"/v2/library/tiny/manifests/{pin}"] = old
    registry.push(weights(tmp_path, seed=2))
    assert puller(store, transports).pull(registry.uri(), pin=pin).files[0].sha256 == digest


def test_a_pin_that_is_gone_is_an_error_that_says_what_to_do(
    tmp_path: Path, registry: OllamaRegistry, transports: WatchedTransports, store: WeightsStore
) -> None:
    registry.push(weights(tmp_path))
    with pytest.raises(SourceError, match="update the Model"):
        puller(store, transports).pull(registry.uri(), pin="sha256:" + "0" * 64)


def test_a_source_that_changes_during_the_pull_is_pulled_in_its_new_version(
    tmp_path: Path, registry: OllamaRegistry, transports: WatchedTransports, store: WeightsStore
) -> None:
    registry.files["/model.gguf"] = weights(tmp_path)
    new = weights(tmp_path, seed=2)

    def change(start: int) -> None:
        if start > 0:
            registry.files["/model.gguf"] = new

    transports.on_open = change
    uri = f"https://{registry.host}/model.gguf"
    snapshot = puller(store, transports).pull(uri)
    assert snapshot.files[0].sha256 == sha256(new)


def test_files_that_do_not_fit_together_are_refused_with_the_numbers(
    tmp_path: Path, registry: OllamaRegistry, transports: WatchedTransports
) -> None:
    store = WeightsStore(tmp_path / "store", size_limit=SIZE)
    registry.push(weights(tmp_path), adapter="x" * 2**20)
    with pytest.raises(StoreFull, match=r"needs 13 MiB; 12 MiB are free"):
        puller(store, transports).pull(registry.uri())
    assert registry.sent <= 2 * 2**20


def test_all_parts_of_a_split_file_are_pulled_under_the_names_that_the_loader_expects(
    tmp_path: Path, registry: OllamaRegistry, transports: WatchedTransports, store: WeightsStore
) -> None:
    parts = split_gguf(write_tiny_model(tmp_path), tmp_path, parts=3)
    for part in parts:
        registry.files[f"/{part.name}"] = part.read_bytes()
    snapshot = puller(store, transports).pull(f"https://{registry.host}/{parts[0].name}")
    assert [file.name for file in snapshot.files] == [part.name for part in parts]
    assert snapshot.size == sum(part.stat().st_size for part in parts)


def test_a_cancelled_pull_ends_and_the_next_one_continues(
    tmp_path: Path, registry: OllamaRegistry, transports: WatchedTransports, store: WeightsStore
) -> None:
    digest = registry.push(weights(tmp_path))
    cancel = threading.Event()

    def stop(progress: PullProgress) -> None:
        if progress.completed:
            cancel.set()

    registry.limit = SIZE // 2
    with pytest.raises(PullCancelled):
        puller(store, transports, cancel).pull(registry.uri(), progress=stop)
    registry.go_on.set()
    assert puller(store, transports).pull(registry.uri()).files[0].sha256 == digest


def test_a_list_of_files_that_changes_at_one_pin_is_not_mixed(
    tmp_path: Path, registry: OllamaRegistry, transports: WatchedTransports, store: WeightsStore
) -> None:
    registry.push(weights(tmp_path))

    def other_size(resolved: ResolvedSource) -> ResolvedSource:
        if len(transports.pins) == 1:
            return resolved
        return replace(resolved, files=tuple(replace(file, size=SIZE + 1) for file in resolved.files))

    def expire(_start: int) -> None:
        if len(transports.pins) % 2:
            raise LocationExpired("the URL has expired")

    transports.on_resolve, transports.on_open = other_size, expire
    with pytest.raises(TransientError):
        puller(store, transports).pull(registry.uri())


@pytest.fixture
def damaged(tmp_path: Path, registry: OllamaRegistry) -> bytes:
    """Weights whose blob has another last byte than its digest says."""
    data = weights(tmp_path, size=2 * 2**20)
    registry.blobs[f"sha256:{registry.push(data)}"] = data[:-1] + b"x"
    return data


class Pulls:
    """Pulls with a clock that the test sets."""

    def __init__(self, store: WeightsStore, transports: Transports, uri: str) -> None:
        self.now = 1e9
        downloader = Downloader(store, transports, options=FAST)
        self._puller = Puller(store, transports, downloader, clock=lambda: self.now)
        self._uri = uri

    def refused(self, pin: str = "", *, force: bool = False) -> ContentError:
        with pytest.raises(ContentError, match="twice") as error:
            self._puller.pull(self._uri, pin=pin, force=force)
        return error.value

    def pull(self) -> None:
        self._puller.pull(self._uri)


def test_wrong_content_is_not_downloaded_again_within_the_delay(
    damaged: bytes, registry: OllamaRegistry, transports: WatchedTransports, store: WeightsStore
) -> None:
    pulls = Pulls(store, transports, registry.uri())
    first = pulls.refused()
    assert registry.sent >= 2 * len(damaged)
    pin = "sha256:" + sha256(registry.manifests["/v2/library/tiny/manifests/latest"])
    pulls.now += 599
    sent, requests = registry.sent, len(registry.requests)
    assert str(pulls.refused(pin)) == str(first)
    assert len(registry.requests) == requests, "a pinned source is not even resolved"
    assert str(pulls.refused()) == str(first)
    assert registry.sent - sent < 4096, "the manifest"
    pulls.now += 2
    assert pulls.refused().retry_after == 1200
    assert registry.sent >= sent + 2 * len(damaged)


def test_a_forced_pull_downloads_again_at_once_and_a_good_one_forgets_the_failure(
    damaged: bytes, registry: OllamaRegistry, transports: WatchedTransports, store: WeightsStore
) -> None:
    pulls = Pulls(store, transports, registry.uri())
    pulls.refused()
    assert pulls.refused(force=True).retry_after == 1200
    registry.blobs[f"sha256:{sha256(damaged)}"] = damaged
    pulls.refused()
    pulls.now += 1201
    pulls.pull()
    assert list((store.root / "failures").iterdir()) == []


def test_a_new_version_is_pulled_although_the_one_before_was_wrong(
    tmp_path: Path, damaged: bytes, registry: OllamaRegistry, transports: WatchedTransports, store: WeightsStore
) -> None:
    pulls = Pulls(store, transports, registry.uri())
    pulls.refused()
    registry.push(weights(tmp_path, seed=2))
    pulls.pull()


def test_parts_of_unknown_digest_that_an_interrupted_pull_has_are_not_pulled_again(
    tmp_path: Path, registry: OllamaRegistry, transports: WatchedTransports, store: WeightsStore
) -> None:
    parts = split_gguf(write_tiny_model(tmp_path), tmp_path, parts=3)
    for part in parts:
        registry.files[f"/{part.name}"] = part.read_bytes()
    cancel = threading.Event()

    def stop(progress: PullProgress) -> None:
        if progress.file == parts[1].name:
            cancel.set()

    uri = f"https://{registry.host}/{parts[0].name}"
    with pytest.raises(PullCancelled):
        puller(store, transports, cancel).pull(uri, progress=stop)
    del registry.requests[:]
    snapshot = puller(store, transports).pull(uri)
    assert [file.name for file in snapshot.files] == [part.name for part in parts]
    requests = [request for request in registry.requests if parts[0].name in request]
    assert len(requests) == 3, "two to resolve it, one for its header, and none for its content"


@pytest.mark.parametrize("uri", ["file:///weights.gguf", "pvc://claim/weights.gguf"])
def test_a_local_source_is_not_pulled(uri: str, transports: WatchedTransports, store: WeightsStore) -> None:
    with pytest.raises(SourceError, match="nothing to pull"):
        puller(store, transports).pull(uri)
