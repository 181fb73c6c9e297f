"""Residency of files in the page cache."""

from __future__ import annotations

from pathlib import Path

from corral_server.system.page_cache import are_cached

SIZE = 1 << 20


def test_a_file_that_was_written_now_is_cached(tmp_path: Path) -> None:
    file = tmp_path / "written"
    file.write_bytes(b"x" * SIZE)
    assert are_cached([file])


def test_a_file_with_a_page_that_was_never_read_is_not_cached(tmp_path: Path) -> None:
    written, sparse = tmp_path / "written", tmp_path / "sparse"
    written.write_bytes(b"x" * SIZE)
    sparse.write_bytes(b"x")
    with sparse.open("r+b") as file:
        file.truncate(SIZE)
    assert not are_cached([written, sparse])


def test_a_file_that_cannot_be_read_is_not_cached(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert not are_cached([tmp_path / "missing"])
    assert not are_cached([tmp_path / "empty"])
