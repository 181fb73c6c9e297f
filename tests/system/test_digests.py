"""Digest check of files before llama.cpp reads them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from corral_core.base.errors import SourceError
from corral_server.system.digests import _CHUNK_BYTES, check_digest


def test_a_matching_digest_passes_and_another_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    check_digest([path], digest)
    with pytest.raises(SourceError, match=digest):
        check_digest([path], "0" * 64)


def test_the_digest_of_a_split_file_is_that_of_its_parts_one_after_the_other(tmp_path: Path) -> None:
    parts = [tmp_path / "1.gguf", tmp_path / "2.gguf"]
    parts[0].write_bytes(b"wei")
    parts[1].write_bytes(b"ghts")
    told: list[float] = []

    def note(share: float) -> bool:
        told.append(share)
        return True

    check_digest(parts, hashlib.sha256(b"weights").hexdigest(), progress=note)
    assert told == [3 / 7, 1.0]
    with pytest.raises(SourceError, match=r"1\.gguf with its other parts is not what the Model expects"):
        check_digest(parts[:1] + parts[:1], hashlib.sha256(b"weights").hexdigest())


def test_a_check_reports_progress_and_can_be_cancelled(tmp_path: Path) -> None:
    path, told = tmp_path / "large.gguf", list[float]()

    def note(share: float) -> bool:
        told.append(share)
        return True

    path.write_bytes(bytes(2 * _CHUNK_BYTES + 1))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    check_digest([path], digest, progress=note)
    assert told == sorted(told)
    assert (len(told), told[-1]) == (3, 1.0)
    with pytest.raises(SourceError, match="aborted"):
        check_digest([path], digest, progress=lambda share: share < 0.5)
