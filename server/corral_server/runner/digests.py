"""Whether a file is the one that a Model means."""

from __future__ import annotations

import hashlib
from pathlib import Path

from corral_core.errors import SourceError


def check_digest(path: Path, expected: str) -> None:
    """Raises SourceError, which names the file, when its SHA-256 is not ``expected`` (64 hex digits)."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise SourceError(f"{path} is not what the Model expects: its sha256 is {found}, not {expected}")
