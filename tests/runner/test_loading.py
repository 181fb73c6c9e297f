"""Weights that are checked before llama.cpp sees them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from corral_core.errors import GGUFError, SourceError
from corral_server.runner.loading import check_digest, read_facts
from tests.support.gguf_files import gguf_bytes


def test_the_facts_are_the_headers(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(gguf_bytes())
    facts = read_facts(path)
    assert (facts.family, facts.size, facts.context_length) == ("llama", path.stat().st_size, 256)


@pytest.mark.parametrize("data", [b"", b"GGUF", b"<html>", b"GGUF" + b"\xff" * 64])
def test_a_file_that_is_no_gguf_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(GGUFError, match=r"bad\.gguf cannot be loaded"):
        read_facts(path)


def test_a_truncated_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(gguf_bytes()[:-16])
    with pytest.raises(GGUFError):
        read_facts(path)


def test_a_digest_that_fits_is_taken_and_another_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    check_digest(path, digest)
    with pytest.raises(SourceError, match=digest):
        check_digest(path, "0" * 64)
