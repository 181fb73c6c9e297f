from __future__ import annotations

from pathlib import Path

import pytest

from corral_server.pull.store import WeightsStore


@pytest.fixture
def store(tmp_path: Path) -> WeightsStore:
    return WeightsStore(tmp_path / "store")
