"""One ``corral serve`` for all clients: the real gateway and real runners, at zero until somebody asks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.served_models import write_models
from tests.local.served import Served, serving


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("clients")
    write_models(folder)
    with serving(folder, folder) as served:
        yield served
