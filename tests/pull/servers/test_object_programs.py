"""Programs of the object stores: what is missing is named, and nothing is built twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.pull.servers.object_programs import AZURITE, ProgramError, command


@pytest.mark.parametrize(("program", "tool"), [("versitygw", "Go"), ("fake-gcs-server", "Go"), (AZURITE, "Node.js")])
def test_a_missing_tool_is_named(program: str, tool: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProgramError, match=f"{tool}.* is not installed, which {program} needs"):
        command(program)


@pytest.fixture
def npm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Replace npm and node by scripts; npm ends with the status in the file ``status`` and installs one file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "status").write_text("0")
    main = "node_modules/azurite/dist/src/blob/main.js"
    scripts = {
        "node": "echo v0",
        "npm": f"echo >>{folder}/calls; mkdir -p {Path(main).parent}; touch {main}; echo broken >&2\n"
        f"exit $(cat {folder}/status)",
    }
    for name, script in scripts.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_a_program_is_installed_once(npm: Path) -> None:
    first = command(AZURITE)
    assert Path(first[1]).is_file()
    assert command(AZURITE) == first
    assert (npm / "calls").read_text().count("\n") == 1


def test_a_failed_installation_leaves_nothing(npm: Path, tmp_path: Path) -> None:
    (npm / "status").write_text("1")
    with pytest.raises(ProgramError, match="npm ci failed: broken"):
        command(AZURITE)
    assert [path.suffix for path in (tmp_path / "cache/corral/object-stores").iterdir()] == [".lock"]


def test_the_leftovers_of_a_killed_installation_are_removed(npm: Path, tmp_path: Path) -> None:
    assert npm
    leftover = tmp_path / "cache/corral/object-stores/build-azurite-killed"
    leftover.mkdir(parents=True)
    command(AZURITE)
    assert not leftover.exists()
