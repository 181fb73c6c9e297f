"""Downloads that were cancelled or interrupted, and what the next one uses of them."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from dataclasses import replace

import pytest

from corral_server.pull.download.partial import PartialFile
from corral_server.pull.download.state import load_state
from corral_server.pull.errors import PullCancelled
from corral_server.pull.remote_files import RemoteFile
from corral_server.pull.store import WeightsStore
from tests.pull.download.range_server import Fault, RangeServer
from tests.pull.download.small_downloads import CONTENT, DIGEST, FILE, OPTIONS, WANTED, assert_complete, fetch


def interrupt(store: WeightsStore, server: RangeServer, file: RemoteFile = FILE, *, after: int = 60_000) -> None:
    """Begin a download and cancel it when the server has sent ``after`` bytes."""
    cancel = threading.Event()

    def hold(position: int) -> None:
        if server.sent >= after:
            cancel.set()
            server.released.wait(60)

    server.on_read = hold
    try:
        with pytest.raises(PullCancelled):
            fetch(store, server, file, options=replace(OPTIONS, stall=60), cancel=cancel)
    finally:
        server.released.set()


@pytest.mark.parametrize("known", [True, False])
def test_a_cancelled_download_continues(store: WeightsStore, *, known: bool) -> None:
    file = replace(FILE, version="v1", sha256=DIGEST if known else None)
    interrupt(store, RangeServer(CONTENT, version="v1"), file)
    state = load_state(PartialFile(store.partial, file).state)
    assert state is not None
    assert 30_000 < state.done().size < len(CONTENT)
    server = RangeServer(CONTENT, version="v1")
    assert fetch(store, server, file) == WANTED
    assert server.sent == len(CONTENT) - state.done().size
    assert_complete(store)


def test_a_download_of_an_unknown_version_starts_again(store: WeightsStore) -> None:
    file = replace(FILE, sha256=None)
    interrupt(store, RangeServer(CONTENT), file)
    other = CONTENT[::-1]
    server = RangeServer(other)
    assert fetch(store, server, file).sha256 == hashlib.sha256(other).hexdigest()
    assert server.sent >= len(CONTENT)


def test_a_download_ends_within_a_second_when_the_server_hangs(store: WeightsStore) -> None:
    cancel = threading.Event()
    server = RangeServer(CONTENT, itertools.repeat(Fault(after=100, hang=True)))
    server.on_read = lambda position: cancel.set() if position else None
    started = time.monotonic()
    try:
        with pytest.raises(PullCancelled):
            fetch(store, server, options=replace(OPTIONS, stall=60), cancel=cancel)
        assert time.monotonic() - started < 1
    finally:
        server.released.set()


@pytest.mark.parametrize("damage", [b"", b"{", b'{"ranges": [[0, 999999999]]}', None])
def test_a_damaged_state_starts_the_download_again(store: WeightsStore, damage: bytes | None) -> None:
    interrupt(store, RangeServer(CONTENT))
    partial = PartialFile(store.partial, FILE)
    if damage is None:
        partial.data.unlink()
    else:
        partial.state.write_bytes(damage)
    assert fetch(store, RangeServer(CONTENT)) == WANTED
    assert_complete(store)


def test_data_that_is_not_what_the_state_says_is_noticed(store: WeightsStore) -> None:
    interrupt(store, RangeServer(CONTENT))
    data = PartialFile(store.partial, FILE).data
    data.write_bytes(bytes(data.stat().st_size))
    assert fetch(store, RangeServer(CONTENT)) == WANTED
    assert_complete(store)
