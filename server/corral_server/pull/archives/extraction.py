"""Extraction of one file of a downloaded archive, by streaming: nothing but the wanted data is written.

What is decompressed is bounded by ``MAX_RATIO`` times the archive, and the wanted file by the room of the store.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from corral_core.base.quantities import format_bytes
from corral_server.pull.archives.members import Decompressed, damaged, find_member
from corral_server.pull.archives.tar import TarReader
from corral_server.pull.errors import ContentError
from corral_server.pull.remote_files import Archive

MAX_RATIO: Final = 64
"""Decompressed bytes for each byte of the archive; weights compress by less than 2."""
_FREE: Final = 2**30
"""Decompressed bytes that are always allowed."""
_CHUNK: Final = 2**18


def extract(
    archive: Path,
    kind: Archive,
    *,
    member: str,
    target: int,
    on_size: Callable[[int], None],
    on_bytes: Callable[[int], None],
) -> str:
    """Write the file ``member`` of an archive, a path or a pattern of ``fnmatch``, to the open file ``target``.

    ``on_size`` is called with its size before the first byte, ``on_bytes`` with the bytes that are written; both may
    raise. Returns the sha256. Raises ContentError if the archive is damaged or has no such file, and OSError.
    """
    bound = MAX_RATIO * archive.stat().st_size + _FREE

    def refused() -> ContentError:
        return ContentError(
            f"the archive of {member} was refused: it becomes more than {format_bytes(bound)} when it is decompressed, "
            f"{MAX_RATIO} times its size"
        )

    with archive.open("rb", buffering=_CHUNK) as file:
        tar = TarReader(Decompressed(file, kind, name=member, bound=bound, refused=refused).read)
        try:
            on_size(find_member(tar, member).size)
            return _copy(tar, target, on_bytes)
        except ValueError as error:
            raise damaged(member, error) from error


def _copy(tar: TarReader, target: int, on_bytes: Callable[[int], None]) -> str:
    digest, position = hashlib.sha256(), 0
    while chunk := tar.data(_CHUNK):
        digest.update(chunk)
        view = memoryview(chunk)
        while view:
            count = os.pwrite(target, view, position)
            position += count
            view = view[count:]
        on_bytes(position)
    return digest.hexdigest()
