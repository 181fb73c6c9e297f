"""``corral serve`` for all client tests: the real gateway and real runners, which load at the first request.

Tests marked ``clients`` need what is not in the test environment: the ``ollama`` command, which is compiled before the
first of them (also by ``python -m tests.clients.ollama_program``), and litellm in a separate environment, which
``make set-up`` creates. If one is missing, the tests are skipped with the reason, or fail with
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
from tests.clients.served_models import write_extra_models, write_models
from tests.local.served import Served, serving
from tests.support.ollama_registry import OllamaRegistry, ollama_registry

_PROGRAM = pytest.StashKey[Path]()
_MISSING = pytest.StashKey[str]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compile the command before the first test, so that it does not count towards a test's timeout."""
    wanted = any("ollama_program" in getattr(item, "fixturenames", ()) for item in session.items)
    if session.config.option.collectonly or not wanted:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            session.config.stash[_PROGRAM] = program(lambda line: print(f"  {line}", flush=True))
    except ProgramError as error:
        session.config.stash[_MISSING] = str(error)


@pytest.fixture(scope="package")
def registry() -> Iterator[OllamaRegistry]:
    """A registry that the server pulls from; a test pushes its models to it."""
    with ollama_registry() as registry:
        yield registry


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory, registry: OllamaRegistry) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("clients")
    write_models(folder)
    settings = {"XDG_CACHE_HOME": str(folder / "cache"), "CORRAL_PLAIN_HTTP_HOSTS": registry.host}
    with serving(folder, folder, environment=settings) as served:
        yield served


@pytest.fixture(scope="package")
def extra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A second server with a reranker, and a Model for images, which loads if llama.cpp has its library for them."""
    folder = tmp_path_factory.mktemp("extra")
    write_extra_models(folder)
    with serving(folder, folder) as served:
        yield served


@pytest.fixture(scope="session")
def ollama_program(pytestconfig: pytest.Config) -> Path:
    """The path of the ``ollama`` command."""
    missing = pytestconfig.stash.get(_MISSING, None)
    if missing is not None:
        _cannot(missing)
    return pytestconfig.stash[_PROGRAM]


@pytest.fixture
def command(ollama_program: Path, served: Served, tmp_path: Path) -> Command:
    """The ``ollama`` command with an empty home directory."""
    return Command(ollama_program, served.url, tmp_path)


@pytest.fixture(scope="session")
def clients_python() -> Path:
    """The interpreter of the environment with the clients that conflict with the other packages."""
    python = Path(sys.prefix) / "clients" / "bin" / "python"
    if not python.exists():
        _cannot(f"there is no environment in {python.parent.parent} (make set-up makes it)")
    return python


def _cannot(reason: str) -> NoReturn:
    if os.environ.get("CORRAL_REQUIRE_CLIENTS") == "1":
        pytest.fail(f"CORRAL_REQUIRE_CLIENTS=1, but {reason}", pytrace=False)
    pytest.skip(reason)
