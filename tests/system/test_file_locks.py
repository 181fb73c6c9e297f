"""File locks and leases: exclusion, takeover from dead holders, removal of the lock's file."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from corral_server.system.file_locks import FileLock
from corral_server.system.leases import EXPIRY, Lease
from tests.support.waiting import until

HOLDER = """
import sys, pathlib, time
from corral_server.system.file_locks import FileLock
assert FileLock(pathlib.Path(sys.argv[1])).try_acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_a_lock_is_held_once_even_in_one_process(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.try_acquire()
    assert not second.try_acquire()
    first.release()
    assert second.try_acquire()
    second.release()
    second.release()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        lock = FileLock(path)
        assert not lock.try_acquire()
        process.send_signal(signal.SIGKILL)
        until(lock.try_acquire, what="the lock of the killed process")
        lock.release()
    finally:
        process.kill()
        process.communicate()


def test_a_removed_lock_file_locks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = FileLock(path)
    assert first.try_acquire()
    descriptor = os.open(path, os.O_RDWR)
    first.release(remove=True)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert FileLock(path).try_acquire()
    os.close(descriptor)


def test_many_threads_never_hold_a_lock_together(tmp_path: Path) -> None:
    inside, together, done = [], [], []

    def work() -> None:
        for _ in range(20):
            lock = FileLock(tmp_path / "lock")
            until(lock.try_acquire, timeout=60, interval=0.0001)
            inside.append(1)
            together.append(len(inside))
            inside.pop()
            lock.release(remove=True)
        done.append(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 6
    assert set(together) == {1}


def test_without_flock_a_lease_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.try_acquire()
    assert not second.try_acquire()
    first.release()
    assert second.try_acquire()
    second.release()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_lease_that_is_not_renewed_is_taken_over_by_one(tmp_path: Path) -> None:
    path, clock = tmp_path / "lease", Clock()
    path.write_bytes(b"a holder that died")
    takers = [Lease(path, settle=0.05, clock=clock) for _ in range(4)]
    assert not any(taker.try_acquire() for taker in takers)
    clock.now = EXPIRY - 1
    assert not any(taker.try_acquire() for taker in takers)
    clock.now = EXPIRY
    won: list[Lease] = []
    threads = [threading.Thread(target=lambda t=t: won.append(t) if t.try_acquire() else None) for t in takers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    won[0].release()
    assert takers[0].try_acquire()
    takers[0].release()
    assert not path.exists()


def test_a_lease_that_is_renewed_is_not_taken_over(tmp_path: Path) -> None:
    path, clock = tmp_path / "lease", Clock()
    holder, other = Lease(path, clock=clock), Lease(path, settle=0.01, clock=clock)
    assert holder.try_acquire()
    for step in range(5):
        clock.now = step * (EXPIRY - 1)
        os.utime(path, ns=(step, step))
        assert not other.try_acquire()
    other.release()
    assert path.exists()
    holder.release()
    assert not path.exists()
