"""Projectors of remote sources: their headers are read before the pull."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from corral_core.base.errors import GGUFError
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.model.model import ModelSpec
from corral_core.model.remote_sources import remote_sources
from corral_core.sources.locate import WeightsRoots
from corral_server.pull.credentials import NO_CREDENTIALS
from corral_server.pull.download.downloader import Downloader
from corral_server.pull.download.options import DownloadOptions
from corral_server.pull.http.settings import NetworkSettings
from corral_server.pull.network import NetworkTransports
from corral_server.pull.pod.inspect import inspect
from corral_server.pull.puller import Puller
from corral_server.pull.store import WeightsStore
from tests.support.gguf_files import gguf_bytes
from tests.support.ollama_registry import OllamaRegistry, ollama_registry
from tests.support.projector_headers import WEIGHTS, projector_bytes


@pytest.fixture
def registry() -> Iterator[OllamaRegistry]:
    with ollama_registry() as registry:
        yield registry


def inspected(registry: OllamaRegistry, folder: Path, **fields: str) -> ModelMetadata:
    """Return the metadata of a Model with the registry's source, without having pulled it."""
    transports = NetworkTransports(NetworkSettings(plain_http_hosts=frozenset({registry.host})), NO_CREDENTIALS)
    store = WeightsStore(folder / "store")
    puller = Puller(store, transports, Downloader(store, transports, options=DownloadOptions()))
    spec = ModelSpec.model_validate({"source": registry.uri(), **fields})
    return inspect(spec, {}, puller, roots=WeightsRoots(claim=folder)).metadata


def test_the_projector_of_the_source_is_part_of_the_metadata(registry: OllamaRegistry, tmp_path: Path) -> None:
    registry.push(gguf_bytes(), projector=projector_bytes())
    metadata = inspected(registry, tmp_path)
    assert metadata.families == ("llama", "clip")
    assert metadata.dimensions is not None
    assert metadata.dimensions.projector == WEIGHTS
    assert metadata.projector_info["clip.vision.image_size"] == 896


def test_a_source_of_its_own_can_be_the_projector(registry: OllamaRegistry, tmp_path: Path) -> None:
    registry.push(gguf_bytes())
    registry.push(projector_bytes(projector_type="mlp"), name="projector")
    metadata = inspected(registry, tmp_path, projector=registry.uri("projector"))
    assert metadata.projector_info["clip.projector_type"] == "mlp"


def test_a_file_on_this_machine_can_be_the_projector(registry: OllamaRegistry, tmp_path: Path) -> None:
    registry.push(gguf_bytes(), projector=projector_bytes())
    path = tmp_path / "mmproj.gguf"
    path.write_bytes(projector_bytes(projector_type="mlp"))
    assert inspected(registry, tmp_path, projector=f"file://{path}").projector_info["clip.projector_type"] == "mlp"


def test_only_a_projector_of_the_spec_must_be_one(registry: OllamaRegistry, tmp_path: Path) -> None:
    registry.push(gguf_bytes(), projector=projector_bytes(has_vision_encoder=False))
    assert inspected(registry, tmp_path).families == ("llama",)
    registry.push(gguf_bytes(), name="other")
    with pytest.raises(GGUFError, match="not a projector"):
        inspected(registry, tmp_path, projector=registry.uri("other"))


def test_a_projector_of_the_spec_is_pulled_and_pinned_like_weights() -> None:
    fields = {"source": "hf://a/b", "projector": "hf://a/b/mmproj.gguf"}
    assert remote_sources(ModelSpec.model_validate(fields)) == ("hf://a/b", "hf://a/b/mmproj.gguf")
