"""A compiled copy of ``ui/`` with its npm packages, and Chromium.

The browser is a client: without Node.js, the npm packages or Chromium the tests are skipped with the reason, or fail
with CORRAL_REQUIRE_CLIENTS=1.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from scripts import ui

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True, slots=True)
class Workspace:
    """``folder`` is a copy of ``ui/``, with its TypeScript compiled to ``compiled/``."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, *command: str, **settings: str) -> None:
        """Run a program of the page's build. Raises UIError with the end of its output."""
        ui.run(command, self.folder, {**self.environment, **settings})


@pytest.fixture(scope="package")
def sources() -> Iterator[Workspace]:
    """A copy of ``ui/``, not compiled; the page is built and in its place."""
    if reason := ui.problem():
        _cannot(reason)
    ui.provide()
    with ui.workspace() as (folder, environment):
        yield Workspace(folder, environment)


@pytest.fixture(scope="package")
def compiled(sources: Workspace) -> Workspace:
    sources.run("tsc", "--project", "tests")
    return sources


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    return found or _cannot("Chromium is not installed (Debian package chromium)")


def _cannot(reason: str) -> NoReturn:
    if os.environ.get("CORRAL_REQUIRE_CLIENTS") == "1":
        pytest.fail(f"CORRAL_REQUIRE_CLIENTS=1, but {reason}", pytrace=False)
    pytest.skip(reason)
