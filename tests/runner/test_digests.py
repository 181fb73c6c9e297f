"""Files that are checked before llama.cpp sees them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from corral_core.errors import SourceError
from corral_server.runner.digests import _CHUNK, check_digest


def test_a_digest_that_fits_is_taken_and_another_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    check_digest(path, digest)
    with pytest.raises(SourceError, match=digest):
        check_digest(path, "0" * 64)


def test_a_check_tells_how_far_it_is_and_can_be_given_up(tmp_path: Path) -> None:
    path, told = tmp_path / "large.gguf", list[float]()

    def note(share: float) -> bool:
        told.append(share)
        return True

    path.write_bytes(bytes(2 * _CHUNK + 1))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    check_digest(path, digest, progress=note)
    assert told == sorted(told)
    assert (len(told), told[-1]) == (3, 1.0)
    with pytest.raises(SourceError, match="given up"):
        check_digest(path, digest, progress=lambda share: share < 0.5)
