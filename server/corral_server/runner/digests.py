"""Whether a file is the one that a Model means.

Reading a large one takes minutes: meanwhile it is told how far that is, and it can be given up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from corral_core.errors import SourceError

_CHUNK = 4 * 2**20
"""Bytes that are read at once."""


def check_digest(path: Path, expected: str, *, progress: Callable[[float], bool] = lambda _share: True) -> None:
    """Raises SourceError, which names the file, when its SHA-256 is not ``expected`` (64 hex digits).

    ``progress`` gets 0 to 1 and gives the check up by returning False; that is a SourceError too.
    """
    found, done, size = hashlib.sha256(), 0, max(1, path.stat().st_size)
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
            done += len(chunk)
            if not progress(min(1.0, done / size)):
                raise SourceError(f"the check of {path} was given up")
    if found.hexdigest() != expected:
        raise SourceError(f"{path} is not what the Model expects: its sha256 is {found.hexdigest()}, not {expected}")
