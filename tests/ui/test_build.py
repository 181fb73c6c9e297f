"""The build of the page (``scripts/ui.py``) on machines that cannot build it, and the place of the built files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts import ui


def _page(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def _files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_missing_node_is_reported_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "Node.js 20.19 or newer with npm is not installed" in (ui.problem() or "")


def test_an_old_node_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("node", "npm"):
        (tmp_path / name).write_text("#!/bin/sh\necho v18.20.4\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "this is v18.20.4" in (ui.problem() or "")


def test_what_works_without_the_page_goes_on_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ui.provide_if_possible()
    assert "going on without the web page of the gateway: Node.js" in capsys.readouterr().err


def test_a_new_page_replaces_all_files_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "static"
    ui.put(_page(tmp_path / "old", index_html="a1", assets__a1_js="1"), target)
    ui.put(_page(tmp_path / "new", index_html="a2", assets__a2_js="2"), target)
    assert _files(target) == {"index.html": "a2", "assets/a2.js": "2"}


def test_a_page_that_is_in_its_place_is_not_written_again(tmp_path: Path) -> None:
    page = _page(tmp_path / "page", index_html="a", assets__a_js="1")
    ui.put(page, tmp_path / "static")
    index = tmp_path / "static/index.html"
    os.utime(index, (1, 1))
    ui.put(page, tmp_path / "static")
    assert index.stat().st_mtime == 1
