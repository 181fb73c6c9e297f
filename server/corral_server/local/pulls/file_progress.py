"""Progress of each file of a source from the progress of the whole pull: files are pulled one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from corral_server.gateway.directory.directory import PullingFile
from corral_server.pull.remote_files import RemoteFile


def pulling_files(files: Sequence[RemoteFile], completed: int) -> tuple[PullingFile, ...]:
    """Return the progress of each file when ``completed`` bytes of all files together are pulled."""
    found, left = [], completed
    for file in files:
        have = left if file.size is None else min(left, file.size)
        left -= have
        digest = file.sha256 or hashlib.sha256(file.name.encode()).hexdigest()
        found.append(PullingFile(digest, file.size or 0, have))
    return tuple(found)
