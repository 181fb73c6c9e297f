"""Compilation of the Kubernetes programs, with a stand-in for the go command."""

from __future__ import annotations

import gc
import os
import warnings
from pathlib import Path

import pytest

from tests.cluster.tools import ToolsError, programs

GO = """#!/bin/sh
case "$1 $2" in
"version "*) echo "go version go1.99 test" ;;
"list -m") echo "v1.36.0" ;;
"list -deps") echo "a package" ;;
"build "*)
    {build}
    ;;
esac
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the folder of the user's cache a new one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def write_go(folder: Path, build: str) -> None:
    go = folder / "go"
    go.write_text(GO.replace("{build}", build))
    go.chmod(0o755)


def test_a_build_closes_the_pipe_of_the_compiler(cache: Path) -> None:
    write_go(cache, 'while [ "$1" != -o ]; do shift; done; echo compiling; : > "$2/helm"')
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        folder = programs(("helm",))
        gc.collect()
    assert (folder / "helm").exists()
    assert [str(warning.message) for warning in caught] == []


def test_a_failed_build_has_the_last_line_of_the_compiler(cache: Path) -> None:
    write_go(cache, "echo a; echo no space left on device; exit 1")
    with pytest.raises(ToolsError, match="go build failed: no space left on device"):
        programs(("helm",))
