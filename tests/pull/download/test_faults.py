"""Downloads from a server that misbehaves: the same digest in the end, or a clear error."""

from __future__ import annotations

import errno
import itertools
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral_core.base.errors import SourceError
from corral_core.sources.snapshot import FileRole
from corral_server.pull.download import parts
from corral_server.pull.download.partial import DATA
from corral_server.pull.errors import ContentError, LocationExpired, PullError, TransientError
from corral_server.pull.store import WeightsStore
from tests.pull.download.range_server import Fault, RangeServer
from tests.pull.download.small_downloads import CONTENT, DIGEST, FILE, OPTIONS, WANTED, assert_complete, fetch
from tests.support.gguf_files import gguf_bytes
from tests.support.waiting import until


@pytest.mark.parametrize("end", [0, 2, 100, len(gguf_bytes()) - 40])
@pytest.mark.parametrize("role", FileRole)
def test_a_body_without_size_and_digest_that_is_cut_off_is_not_published(
    store: WeightsStore, end: int, role: FileRole
) -> None:
    content = gguf_bytes()
    faults = [Fault(after=end, cut=False), Fault(after=end + 1, cut=False), Fault(after=end, cut=False)]
    server = RangeServer(content, iter(faults), sized=False, version="v1")
    file = replace(FILE, role=role, size=None, sha256=None, version="v1")
    with pytest.raises(TransientError, match=r"incomplete: the server names no size.* at another byte"):
        fetch(store, server, file)
    assert list((store.root / "blobs").iterdir()) == list(store.partial.iterdir()) == []
    assert fetch(store, server, file).size == len(content), "after one more body that is cut off"


def test_a_body_that_ends_twice_at_the_same_byte_is_wrong_on_the_server(store: WeightsStore) -> None:
    server = RangeServer(gguf_bytes()[:-40], sized=False, version="v1")
    with pytest.raises(ContentError, match=r"incomplete: the server names no size.* twice"):
        fetch(store, server, replace(FILE, size=None, sha256=None, version="v1"))
    assert len(server.requests) == 2
    assert list((store.root / "blobs").iterdir()) == list(store.partial.iterdir()) == []


def test_a_body_of_another_format_needs_a_size_or_a_digest(store: WeightsStore) -> None:
    with pytest.raises(ContentError, match="it is no GGUF file"):
        fetch(store, RangeServer(CONTENT, sized=False), replace(FILE, size=None, sha256=None))


FAULTS = st.one_of(
    st.none(),
    st.builds(Fault, after=st.integers(0, 20_000), cut=st.booleans(), piece=st.sampled_from([1_000, 2**30])),
    st.builds(Fault, after=st.integers(0, 20_000), ignore_range=st.just(True)),
    st.builds(Fault, other_range=st.just(True)),
    st.builds(
        Fault,
        refuse=st.sampled_from(
            [TransientError("503"), TransientError("429", retry_after=0.001), LocationExpired("expired")]
        ),
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(faults=st.lists(FAULTS, max_size=30), sized=st.booleans(), ranges=st.booleans(), known=st.booleans())
def test_whatever_a_server_does_the_digest_is_right(
    tmp_path_factory: pytest.TempPathFactory, faults: list[Fault | None], *, sized: bool, ranges: bool, known: bool
) -> None:
    store = WeightsStore(tmp_path_factory.mktemp("store"))
    server = RangeServer(CONTENT, iter(faults), sized=sized, ranges=ranges, version="v1")
    file = FILE if known else replace(FILE, sha256=None, version="v1")
    options = replace(OPTIONS, attempts=40)
    assert fetch(store, server, file, options=options, refresh=lambda: file) == WANTED
    assert_complete(store)


def test_a_server_that_always_fails_ends_with_a_clear_error(store: WeightsStore) -> None:
    server = RangeServer(CONTENT, itertools.repeat(Fault(refuse=TransientError("503 Service Unavailable"))))
    with pytest.raises(TransientError, match=r"503 Service Unavailable\. Gave up after 5 attempts"):
        fetch(store, server)
    assert len(server.requests) <= 5 * OPTIONS.parallel


def test_a_permanent_error_is_not_tried_again(store: WeightsStore) -> None:
    server = RangeServer(CONTENT, itertools.repeat(Fault(refuse=SourceError("404: not found"))))
    with pytest.raises(SourceError, match="404"):
        fetch(store, server)
    assert len(server.requests) == 1


def test_retry_after_is_respected_and_fewer_connections_are_used(store: WeightsStore) -> None:
    server = RangeServer(CONTENT, iter([None, Fault(refuse=TransientError("429", retry_after=0.3))]))
    started = time.monotonic()
    assert fetch(store, server) == WANTED
    assert time.monotonic() - started >= 0.3


def test_a_connection_that_hangs_is_replaced(store: WeightsStore) -> None:
    server = RangeServer(CONTENT, iter([Fault(after=5_000, hang=True), None, Fault(after=0, hang=True)]))
    try:
        assert fetch(store, server) == WANTED
        assert_complete(store)
        assert server.open_streams == 2
    finally:
        server.released.set()
    until(lambda: server.open_streams == 0)
    assert_complete(store)


def test_a_part_that_trickles_is_taken_over(store: WeightsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection has no deadline here: nothing but an idle one ends the wait for its part."""
    monkeypatch.setattr(parts, "TAKE_AFTER", 0.05)
    options = replace(OPTIONS, stall=600, min_split=2**30)
    server = RangeServer(CONTENT, iter([None, Fault(after=5_000, hang=True)]))
    try:
        assert fetch(store, server, options=options) == WANTED
        assert server.open_streams == 1
    finally:
        server.released.set()
    until(lambda: server.open_streams == 0)
    assert_complete(store)
    assert server.sent < 1.2 * len(CONTENT)


def test_a_corrupt_file_is_downloaded_once_more(store: WeightsStore) -> None:
    server = RangeServer(CONTENT, iter([Fault(corrupt=True)]))
    assert fetch(store, server) == WANTED
    assert server.sent >= 2 * len(CONTENT)


def test_a_file_that_is_always_corrupt_is_an_error_and_nothing_stays(store: WeightsStore) -> None:
    server = RangeServer(CONTENT, itertools.repeat(Fault(corrupt=True)))
    with pytest.raises(ContentError, match=f"instead of {DIGEST}, twice"):
        fetch(store, server)
    assert list(store.partial.iterdir()) == []
    assert list((store.root / "blobs").iterdir()) == []


def test_data_that_cannot_be_synced_after_the_last_byte_is_not_published(
    store: WeightsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel reports a failed write of the data once: the sync before the publication succeeds."""
    server, synced = RangeServer(CONTENT), os.fdatasync

    def fail(descriptor: int) -> None:
        if server.sent == len(CONTENT) and Path(f"/proc/self/fd/{descriptor}").readlink().suffix == DATA:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        synced(descriptor)

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(PullError, match="Input/output error"):
        fetch(store, server, options=replace(OPTIONS, save_interval=60.0))
    assert list((store.root / "blobs").iterdir()) == []
