"""Files in archives: one is extracted and published, whatever else the archive contains."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from corral_core.sources.snapshot import blob_path
from corral_server.pull.archives import extraction
from corral_server.pull.download.downloader import Downloader
from corral_server.pull.download.options import DownloadOptions
from corral_server.pull.errors import ContentError, StoreFull
from corral_server.pull.remote_files import Archive, RemoteFile
from corral_server.pull.store import WeightsStore
from tests.pull.archives.tar_archives import packed, remote, tar
from tests.pull.download.range_server import RangeServer

CONTENT = bytes(range(256)) * 100
DIGEST = hashlib.sha256(CONTENT).hexdigest()
OPTIONS = DownloadOptions(parallel=2, first_part=4096, min_part=1024, buffer=1024, first_delay=0.001)


def fetch(store: WeightsStore, data: bytes, file: RemoteFile) -> str:
    found = Downloader(store, RangeServer(data), options=OPTIONS).fetch(file, lambda progress: None)
    assert found.name == "model.gguf"
    assert found.size == blob_path(store.root, found.sha256).stat().st_size
    return found.sha256


def assert_empty(folder: Path) -> None:
    assert [path for path in folder.rglob("*") if not path.is_dir()] == []


@pytest.fixture
def store(tmp_path: Path) -> WeightsStore:
    return WeightsStore(tmp_path / "store")


@pytest.mark.parametrize("kind", [Archive.TAR, Archive.TAR_GZIP, Archive.TAR_ZSTD])
@pytest.mark.parametrize("member", ["models/model.gguf", "/models/model.gguf", "models/*.gguf", "*.gguf"])
def test_the_wanted_file_becomes_a_blob(store: WeightsStore, kind: Archive, member: str) -> None:
    data = packed(tar({"README.md": b"x" * 5000, "./models/model.gguf": CONTENT, "z": b"z"}), kind)
    assert fetch(store, data, remote(data, kind, member)) == DIGEST
    assert blob_path(store.root, DIGEST).read_bytes() == CONTENT
    assert list(store.partial.iterdir()) == []
    assert [path.name for path in (store.root / "blobs").iterdir()] == [f"sha256-{DIGEST}"]


def test_several_gzip_members_and_zstd_frames_are_one_stream(store: WeightsStore) -> None:
    data = tar({"model.gguf": CONTENT})
    for kind in (Archive.TAR_GZIP, Archive.TAR_ZSTD):
        joined = packed(data[:10_000], kind) + packed(data[10_000:], kind)
        assert fetch(store, joined, remote(joined, kind)) == DIGEST


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a/../../evil"])
def test_names_in_the_archive_are_never_paths(store: WeightsStore, tmp_path: Path, name: str) -> None:
    data = tar({name: CONTENT})
    assert fetch(store, data, remote(data, member="*evil")) == DIGEST
    assert {path.name for path in tmp_path.iterdir()} == {"store"}
    assert [path.name for path in (store.root / "blobs").iterdir()] == [f"sha256-{DIGEST}"]


@pytest.mark.parametrize("kind", [Archive.TAR, Archive.TAR_GZIP, Archive.TAR_ZSTD])
@pytest.mark.parametrize("cut", [100, 5_000])
def test_a_damaged_archive_is_an_error_and_nothing_stays(store: WeightsStore, kind: Archive, cut: int) -> None:
    whole = packed(tar({"model.gguf": CONTENT * 20}), kind)
    data = whole[: min(cut, len(whole) // 2)]
    with pytest.raises(ContentError, match=r"damaged|no file"):
        fetch(store, data, remote(data, kind))
    assert_empty(store.root)


def test_an_archive_without_the_file_is_an_error(store: WeightsStore) -> None:
    data = tar({"other": CONTENT})
    with pytest.raises(ContentError, match=r"has no file .model\.gguf."):
        fetch(store, data, remote(data))


@pytest.mark.parametrize("kind", [Archive.TAR_GZIP, Archive.TAR_ZSTD])
def test_a_file_that_does_not_fit_is_refused_before_it_is_written(store: WeightsStore, kind: Archive) -> None:
    data = packed(tar({"model.gguf": bytes(20 * 2**20)}), kind)
    store.size_limit = 2**20
    with pytest.raises(StoreFull, match="needs 20 MiB"):
        fetch(store, data, remote(data, kind))
    assert not list(store.partial.glob("*.member"))


def test_a_bomb_before_the_file_is_refused(store: WeightsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "_FREE", 2**20)
    data = packed(tar({"a": bytes(200 * 2**20), "model.gguf": CONTENT}), Archive.TAR_ZSTD)
    with pytest.raises(ContentError, match="64 times its size"):
        fetch(store, data, remote(data, Archive.TAR_ZSTD))


def test_a_zstd_window_beyond_the_limit_is_refused(store: WeightsStore) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(tar({"model.gguf": CONTENT})) + compressor.flush()
    with pytest.raises(ContentError, match="damaged"):
        fetch(store, data, remote(data, Archive.TAR_ZSTD))


def test_an_archive_of_unknown_digest_is_extracted(store: WeightsStore) -> None:
    data = tar({"model.gguf": CONTENT})
    assert fetch(store, data, replace(remote(data), sha256=None, size=None)) == DIGEST
