"""Pages of a mapped file are released, and are read again on access."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest

from corral_server.runner.llama.mapped_pages import release_pages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for what is resident")

SIZE = 1 << 20
PAGE = mmap.PAGESIZE


def resident(path: Path) -> int:
    """Return the resident bytes of the file in this process."""
    found, size = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            found = line.endswith(f" {path}")
        elif found and line.startswith("Rss:"):
            size += int(line.split()[1]) * 1024
    return size


def test_released_pages_are_not_resident_and_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a file with spaces.gguf"
    path.write_bytes(b"weights." * (SIZE // 8))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[::PAGE] == b"w" * (SIZE // PAGE)
        assert resident(path) == SIZE
        assert release_pages(path) == SIZE
        assert resident(path) == 0
        assert mapped[:] == b"weights." * (SIZE // 8)


def test_a_writable_mapping_is_not_released(tmp_path: Path) -> None:
    path = tmp_path / "changed"
    path.write_bytes(bytes(SIZE))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[0] = 7
        assert release_pages(path) == 0
        assert mapped[0] == 7


def test_a_file_without_a_mapping_releases_nothing(tmp_path: Path) -> None:
    assert release_pages(tmp_path / "missing") == 0
