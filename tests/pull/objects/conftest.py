"""Real object stores, one of each kind for the whole run.

Their programs are built before the first test, outside the time limit of any test. Without Go or Node.js the tests are
skipped with the reason, or fail with it if CORRAL_REQUIRE_CLUSTER=1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress

import pytest

from corral_server.pull.objects.settings import Provider
from tests.pull.servers.object_programs import ProgramError, build_all, require_all
from tests.pull.servers.object_stores import ObjectServer, az_server, gs_server, s3_server

_FIXTURE = "stores"


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        return
    if not any(_FIXTURE in getattr(item, "fixturenames", ()) for item in session.items):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled(), suppress(ProgramError):  # the fixture reports it
        build_all(lambda line: print(f"  {line}", flush=True))


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[Provider, ObjectServer]]:
    """Yield the running servers by provider."""
    require_all()
    with ExitStack() as stack:
        servers = (
            stack.enter_context(start(tmp_path_factory.mktemp("store"))) for start in (s3_server, gs_server, az_server)
        )
        yield {server.provider: server for server in servers}
