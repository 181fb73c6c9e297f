"""Files that are checked before llama.cpp sees them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from corral_core.errors import SourceError
from corral_server.runner.digests import check_digest


def test_a_digest_that_fits_is_taken_and_another_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    check_digest(path, digest)
    with pytest.raises(SourceError, match=digest):
        check_digest(path, "0" * 64)
