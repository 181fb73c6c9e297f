"""Projectors where llama.cpp was built without its library for images."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral_core.model.model import ModelSpec
from corral_core.sources.locate import WeightsRoots
from corral_core.sources.snapshot import FileRole
from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.lifecycle import loading
from corral_server.runner.llama.errors import LoadFailed
from tests.support.projector_headers import projector_bytes
from tests.support.pulled_store import publish
from tests.support.tiny_model import write_tiny_model


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WeightsRoots:
    """A pulled source with a projector, for a llama.cpp that has no library for images."""

    def missing() -> None:
        raise LoadFailed("llama.cpp was built without mtmd")

    monkeypatch.setattr(loading, "mtmd", missing)
    projector = tmp_path / "mmproj.gguf"
    projector.write_bytes(projector_bytes())
    files = {write_tiny_model(tmp_path): FileRole.WEIGHTS, projector: FileRole.PROJECTOR}
    snapshot = publish(tmp_path / "store", "hf://a/b", files)
    return WeightsRoots(store=tmp_path / "store", snapshots={"hf://a/b": snapshot.id})


def test_a_projector_of_the_source_is_left_out(roots: WeightsRoots) -> None:
    spec = ModelSpec.model_validate({"source": "hf://a/b"})
    options = EngineOptions(context_length=64, slots=1, threads=1)
    loaded = loading.load_model(spec, options, roots=roots, progress=lambda share: True)
    try:
        assert not loaded.engine.accepts_images
    finally:
        loaded.engine.close()


def test_a_projector_of_the_spec_is_refused(roots: WeightsRoots, tmp_path: Path) -> None:
    spec = ModelSpec.model_validate({"source": "hf://a/b", "projector": f"file://{tmp_path}/mmproj.gguf"})
    with pytest.raises(LoadFailed, match="without mtmd"):
        loading.load_model(spec, EngineOptions(), roots=roots, progress=lambda share: True)
