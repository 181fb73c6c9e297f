"""Files that are written durably."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from corral_server.system.durable_files import read_bounded, sync_folder, write_durably


def test_content_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durably(path, b"one")
    inode = path.stat().st_ino
    write_durably(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_ino != inode
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_durably(path, b"one")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_durably(path, b"two")
    assert path.read_bytes() == b"one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(number: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", lambda descriptor: fail(22))
    sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: fail(5))
    with pytest.raises(OSError, match="Input/output"):
        sync_folder(tmp_path)


def test_a_bounded_read_refuses_what_is_too_long_or_no_regular_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_bounded(path, 4)
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "missing", "."):
        with pytest.raises(OSError, match=name.replace(".", r"\.") if name != "." else "directory|regular"):
            read_bounded(tmp_path / name, 100)
