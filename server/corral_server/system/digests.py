"""SHA-256 check of weights, with progress: a large file takes minutes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from corral_core.base.errors import SourceError

_CHUNK_BYTES = 4 * 2**20


def check_digest(
    parts: Sequence[Path], expected: str, *, progress: Callable[[float], bool] = lambda _share: True
) -> None:
    """Raise SourceError, which names the file, when its SHA-256 is not ``expected`` (64 hex digits).

    The digest of a split file is that of its parts, one after the other. ``progress`` gets 0 to 1 and aborts the check
    by returning False, which raises SourceError too.
    """
    name = f"{parts[0]} with its other parts" if len(parts) > 1 else str(parts[0])
    digest, done, size = hashlib.sha256(), 0, max(1, sum(part.stat().st_size for part in parts))
    for chunk in _chunks(parts):
        digest.update(chunk)
        done += len(chunk)
        if not progress(min(1.0, done / size)):
            raise SourceError(f"the check of {name} was aborted")
    if digest.hexdigest() != expected:
        raise SourceError(f"{name} is not what the Model expects: its sha256 is {digest.hexdigest()}, not {expected}")


def _chunks(parts: Sequence[Path]) -> Iterator[bytes]:
    for part in parts:
        with part.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
