"""Change detection of files."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from corral_server.system.file_changes import CHECK_INTERVAL, FileChanges


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("1")
    return path


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_a_replaced_file_is_reported_once(path: Path) -> None:
    changes = FileChanges([path], clock=itertools.count(0.0, CHECK_INTERVAL).__next__)
    assert not changes.changed()
    replace(path, "2")
    assert changes.changed()
    assert not changes.changed()


def test_files_are_checked_at_most_once_per_interval(path: Path) -> None:
    now = 0.0
    changes = FileChanges([path], clock=lambda: now)
    replace(path, "2")
    now = CHECK_INTERVAL / 2
    assert not changes.changed()
    now = CHECK_INTERVAL
    assert changes.changed()


def test_a_missing_file_is_an_error_until_it_exists_again(path: Path) -> None:
    changes = FileChanges([path], clock=itertools.count(0.0, CHECK_INTERVAL).__next__)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        changes.changed()
    path.write_text("2")
    assert changes.changed()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        FileChanges([path])
