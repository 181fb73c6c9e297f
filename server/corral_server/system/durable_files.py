"""Files that survive a crash: written, synced, then renamed to their names. Files of other processes, read safely.

A rename is atomic, but it is durable only after the folder was synced too, and the content only after the file was.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path

_NO_FOLDER_SYNC = {errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EACCES, errno.EPERM}
"""Errors of file systems that cannot sync a folder; they write names at once or not at all."""


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def temporary_name(name: str) -> str:
    """Return a name that no other process uses; it begins with a dot."""
    return f".{name}.{secrets.token_hex(8)}.tmp"


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a regular file of at most ``limit`` bytes. Raises OSError, also for other files, which could block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes", str(path))
    return data


def write_durably(path: Path, data: bytes, *, mode: int = 0o664) -> None:
    """Replace a file's content as a whole. After a crash it has the old content or the new one. Raises OSError."""
    temporary = path.with_name(temporary_name(path.name))
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
