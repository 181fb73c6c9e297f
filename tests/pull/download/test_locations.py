"""Locations that expire, and files that change during a download."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral_server.pull.errors import FileChanged, LocationExpired, TransientError
from corral_server.pull.remote_files import HttpLocation, RemoteFile
from corral_server.pull.store import WeightsStore
from tests.pull.download.range_server import Fault, RangeServer
from tests.pull.download.small_downloads import CONTENT, DIGEST, FILE, WANTED, fetch


def test_an_expired_location_is_resolved_again_once(store: WeightsStore) -> None:
    server = RangeServer(CONTENT, valid_urls={"https://host/1"})
    refreshed = []

    def refresh() -> RemoteFile:
        refreshed.append(1)
        url = f"https://host/{len(refreshed) + 1}"
        server.valid_urls = {url}
        return replace(FILE, location=HttpLocation(url))

    def expire(position: int) -> None:
        if position > 50_000 and len(refreshed) == 1:
            server.valid_urls = {"https://host/none"}

    server.on_read = expire
    assert fetch(store, server, refresh=refresh) == WANTED
    assert len(refreshed) == 2


def test_an_expired_location_without_refresh_is_an_error(store: WeightsStore) -> None:
    server = RangeServer(CONTENT, valid_urls={"https://host/other"})
    with pytest.raises(TransientError, match="not valid any more"):
        fetch(store, server)


def test_a_location_that_stays_expired_is_an_error(store: WeightsStore) -> None:
    server = RangeServer(CONTENT, valid_urls={"https://host/other"})
    with pytest.raises(LocationExpired, match="Gave up"):
        fetch(store, server, refresh=lambda: FILE)


def test_a_source_that_was_resolved_to_another_file_is_an_error(store: WeightsStore) -> None:
    server = RangeServer(CONTENT, valid_urls={"https://host/other"})
    with pytest.raises(FileChanged, match="not the file any more"):
        fetch(store, server, refresh=lambda: replace(FILE, sha256="0" * 64))


@pytest.mark.parametrize("known", [True, False])
def test_a_file_that_changes_on_the_server_is_an_error(store: WeightsStore, *, known: bool) -> None:
    file = replace(FILE, version="v1", sha256=DIGEST if known else None)
    server = RangeServer(CONTENT, iter([None, None, Fault(version="v2")]), version="v1")
    with pytest.raises(FileChanged, match="has changed"):
        fetch(store, server, file)
    assert list((store.root / "blobs").iterdir()) == []


def test_another_size_on_the_server_is_an_error(store: WeightsStore) -> None:
    with pytest.raises(FileChanged, match=f"has {len(CONTENT)} bytes on the server instead of 99999"):
        fetch(store, RangeServer(CONTENT), replace(FILE, size=99_999))
