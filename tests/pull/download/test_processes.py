"""Downloads by real processes: killed at any moment, and several on one store."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from corral_core.sources.snapshot import blob_path
from corral_server.pull.download.state import load_state
from tests.pull.download.samples import CONTENT, DIGEST
from tests.support.waiting import until

pytestmark = pytest.mark.process


class Downloads:
    """A process of ``forked_downloads``."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.sent = 0

    def start(self) -> int:
        """Start a download and return its process id."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return int(self._line())

    def ended(self, timeout: float) -> bool:
        """Wait for the end of the download; returns False if it did not end in time."""
        assert self.process.stdout is not None
        return bool(select.select([self.process.stdout], [], [], timeout)[0])

    def status(self) -> int:
        """Return the exit status of the download, which is waited for."""
        word, status, sent = self._line().split()
        assert word == b"ended"
        self.sent = int(sent)
        return int(status)

    def _line(self) -> bytes:
        assert self.process.stdout is not None
        assert self.ended(60)
        line = bytearray()
        while not line.endswith(b"\n"):
            byte = os.read(self.process.stdout.fileno(), 1)
            assert byte, "the process ended"
            line += byte
        return bytes(line)


@contextmanager
def downloads(store: Path, *, piece: int, delay: float) -> Iterator[Downloads]:
    command = [sys.executable, "-m", "tests.pull.download.forked_downloads", str(store), str(piece), str(delay)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Downloads(process)
    finally:
        process.kill()
        process.communicate()


def assert_right_or_missing(store: Path) -> bool:
    """Return whether the blob was published; if it was, it must be right."""
    path = blob_path(store, DIGEST)
    if not path.exists():
        return False
    assert path.read_bytes() == CONTENT
    return True


@pytest.mark.slow
def test_a_hundred_kills_at_random_moments(tmp_path: Path) -> None:
    chance, kills, complete = random.Random(), 0, 0
    with downloads(tmp_path, piece=16_384, delay=0.004) as running:
        started = time.monotonic()
        running.start()
        assert running.status() == 0
        duration = time.monotonic() - started
        blob_path(tmp_path, DIGEST).unlink()
        while kills < 100:
            child = running.start()
            if not running.ended(chance.uniform(0.0, 0.4 * duration)):
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            status = running.status()
            assert status in (0, -signal.SIGKILL)
            kills += status != 0
            assert not (tmp_path / "blobs").exists() or len(list((tmp_path / "blobs").iterdir())) <= 1
            if assert_right_or_missing(tmp_path):
                complete += 1
                blob_path(tmp_path, DIGEST).unlink()
            else:
                assert status != 0
        running.start()
        assert running.status() == 0
    assert assert_right_or_missing(tmp_path)
    assert list((tmp_path / "partial").iterdir()) == []
    assert complete >= 5
    assert running.sent < 2 * (complete + 2) * len(CONTENT)


def test_two_processes_on_one_store_download_once(tmp_path: Path) -> None:
    with (
        downloads(tmp_path, piece=16_384, delay=0.002) as first,
        downloads(tmp_path, piece=16_384, delay=0.002) as second,
    ):
        first.start(), second.start()
        assert first.status() == second.status() == 0
        assert first.sent + second.sent < 1.2 * len(CONTENT)
    assert assert_right_or_missing(tmp_path)


def test_the_download_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with (
        downloads(tmp_path, piece=16_384, delay=0.02) as first,
        downloads(tmp_path, piece=16_384, delay=0.002) as second,
    ):
        child = first.start()
        until(lambda: any(load_state(path) for path in tmp_path.glob("partial/*.json")))
        second.start()
        assert not second.ended(0.3)
        os.kill(child, signal.SIGKILL)
        assert first.status() == -signal.SIGKILL
        assert second.status() == 0
        assert first.sent + second.sent < 1.5 * len(CONTENT)
    assert assert_right_or_missing(tmp_path)
