"""A disk without room: refused before the first byte where the size is known, else kept for the next attempt."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from corral_core.sources.snapshot import blob_path
from corral_server.pull.collect import collect
from corral_server.pull.download.downloader import Downloader
from corral_server.pull.download.options import DownloadOptions
from corral_server.pull.download.partial import PartialFile
from corral_server.pull.download.state import load_state
from corral_server.pull.errors import StoreFull
from corral_server.pull.store import WeightsStore
from tests.pull.download.range_server import Fault, RangeServer
from tests.pull.download.samples import CONTENT, DIGEST, FILE

OPTIONS = DownloadOptions(parallel=4, save_interval=0.01, first_part=100_000, min_part=50_000, buffer=16_384)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        reason = f"a small file system cannot be mounted: {mounted.stderr.strip()}"
        if os.environ.get("CORRAL_REQUIRE_CLUSTER") == "1":
            pytest.fail(f"CORRAL_REQUIRE_CLUSTER=1, but {reason}", pytrace=False)
        pytest.skip(reason)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def grow(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)


def test_a_file_of_known_size_is_refused_before_the_first_byte(small_disk: Path) -> None:
    server = RangeServer(CONTENT)
    with pytest.raises(StoreFull, match=r"model.gguf needs 1.91 MiB; (1 MiB|9\d\d.* KiB|1e.* KiB|10\d\d KiB) are free"):
        Downloader(WeightsStore(small_disk), server, options=OPTIONS).fetch(FILE, lambda progress: None)
    assert server.requests == []


def test_a_disk_that_becomes_full_keeps_what_was_pulled(small_disk: Path) -> None:
    store, file = WeightsStore(small_disk), replace(FILE, size=None)
    server = RangeServer(CONTENT, sized=False)
    with pytest.raises(StoreFull, match=r"No space left on device"):
        Downloader(store, server, options=OPTIONS).fetch(file, lambda progress: None)
    assert not blob_path(small_disk, DIGEST).exists()
    grow(small_disk)
    Downloader(store, server, options=OPTIONS).fetch(file, lambda progress: None)
    assert blob_path(small_disk, DIGEST).read_bytes() == CONTENT


def test_a_download_continues_when_the_disk_was_enlarged(small_disk: Path) -> None:
    filler = small_disk / "filler"
    store = WeightsStore(small_disk)
    subprocess.run(["mount", "-o", "remount,size=2400k", str(small_disk)], check=True)
    server = RangeServer(CONTENT)

    def fill(position: int) -> None:
        if server.sent > 400_000 and not filler.exists():
            filler.write_bytes(bytes(1_000_000))

    server.on_read = fill
    with pytest.raises(StoreFull, match=r"No space left on device"):
        Downloader(store, server, options=OPTIONS).fetch(FILE, lambda progress: None)
    state = load_state(PartialFile(store.partial, FILE).state)
    assert state is not None
    assert state.done().size > 0
    grow(small_disk)
    again = RangeServer(CONTENT)
    Downloader(store, again, options=OPTIONS).fetch(FILE, lambda progress: None)
    assert again.sent == len(CONTENT) - state.done().size
    assert blob_path(small_disk, DIGEST).read_bytes() == CONTENT


def test_a_corrupt_file_is_downloaded_once_more_where_only_one_copy_fits(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=3m", str(small_disk)], check=True)
    server = RangeServer(CONTENT, iter([Fault(corrupt=True)]))
    Downloader(WeightsStore(small_disk), server, options=OPTIONS).fetch(FILE, lambda progress: None)
    assert blob_path(small_disk, DIGEST).read_bytes() == CONTENT


def test_a_disk_without_room_for_one_more_file_is_collected(small_disk: Path) -> None:
    store = WeightsStore(small_disk)
    store.prepare()
    forgotten = store.partial / ".translated.tmp"
    forgotten.write_bytes(b"x" * 100_000)
    os.utime(forgotten, (1, 1))
    used = os.statvfs(small_disk)
    inodes = used.f_files - used.f_ffree
    subprocess.run(["mount", "-o", f"remount,nr_inodes={inodes}", str(small_disk)], check=True)
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "file").touch()
    assert collect(store).partials == (forgotten.name,)
    assert not forgotten.exists()
