"""One ``corral serve`` for all clients: the real gateway and real runners, at zero until somebody asks.

Tests marked ``clients`` need what is not in the environment of the tests: the ``ollama`` command, which is compiled
before the first of them (``python -m tests.clients.ollama_program`` does it apart), and litellm in an environment of
its own, which ``make set-up`` makes. Where one cannot be had they are skipped with the reason, or fail with it when
CORRAL_REQUIRE_CLIENTS=1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.clients.command import Command
from tests.clients.ollama_program import ProgramError, program
from tests.clients.served_models import write_models
from tests.local.served import Served, serving

_PROGRAM = pytest.StashKey[Path]()
_MISSING = pytest.StashKey[str]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compiles the command before the first test, so that no test's time limit covers it."""
    wanted = any("command" in getattr(item, "fixturenames", ()) for item in session.items)
    if session.config.option.collectonly or not wanted:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            session.config.stash[_PROGRAM] = program(lambda line: print(f"  {line}", flush=True))
    except ProgramError as error:
        session.config.stash[_MISSING] = str(error)


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("clients")
    write_models(folder)
    with serving(folder, folder) as served:
        yield served


@pytest.fixture
def command(pytestconfig: pytest.Config, served: Served, tmp_path: Path) -> Command:
    """The ``ollama`` command, as a user with an empty home has it."""
    missing = pytestconfig.stash.get(_MISSING, None)
    if missing is not None:
        _cannot(missing)
    return Command(pytestconfig.stash[_PROGRAM], served.url, tmp_path)


@pytest.fixture(scope="session")
def clients_python() -> Path:
    """The interpreter of the environment that has the clients which do not get along with the others."""
    python = Path(sys.prefix) / "clients" / "bin" / "python"
    if not python.exists():
        _cannot(f"there is no environment in {python.parent.parent} (make set-up makes it)")
    return python


def _cannot(reason: str) -> NoReturn:
    if os.environ.get("CORRAL_REQUIRE_CLIENTS") == "1":
        pytest.fail(f"CORRAL_REQUIRE_CLIENTS=1, but {reason}", pytrace=False)
    pytest.skip(reason)
