"""Exclusive locks of files, among threads, processes and machines that share a file system.

- ``flock`` is used wherever the file system has it: NFS turns it into a lock of the server, which ends with its holder
  or its holder's machine. Where it has none, a lease takes its place (``leases.py``).
- The holder may remove the lock's file; a lock counts only while the locked file is the one that has the name.
- Locks save work; they do not carry correctness. A store must stay right if two holders believe in a lock, since a
  network file system may lose one (``nolock``, an expired lease).
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from corral_server.system.leases import Lease

_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


class FileLock:
    """Lock of one path, held by at most one instance at a time. An instance is used by one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._lease: Lease | None = None

    def try_acquire(self) -> bool:
        """Acquire the lock if it is free and return whether this succeeded. Creates the file. Raises OSError."""
        if self._lease is None:
            try:
                return self._try_flock()
            except OSError as error:
                if error.errno not in _NO_FLOCK:
                    raise
                self._lease = Lease(self._path.with_name(f"{self._path.name}.lease"))
        return self._lease.try_acquire()

    def release(self, *, remove: bool = False) -> None:
        """Release the lock; with ``remove`` its file is deleted. Does nothing if the lock is not held."""
        if self._lease is not None:
            self._lease.release()
        if self._descriptor >= 0:
            if remove:
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def _try_flock(self) -> bool:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o664)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._has_name(descriptor):
                self._descriptor, descriptor = descriptor, -1
                return True
        except BlockingIOError:
            pass
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        return False

    def _has_name(self, descriptor: int) -> bool:
        """Return whether the open file is still the one of this name: its last holder may have removed it."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False
