"""Metadata of a Model's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral_core.base.errors import GGUFError, SourceError
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.contracts.termination_message import decode_metadata, encode_metadata
from corral_core.model.model import ModelSpec
from corral_core.sources.locate import WeightsRoots
from corral_core.sources.snapshot import FileRole
from corral_core.weights.files import adapters_digest, matches_spec, read_model_metadata
from corral_core.weights.load_config import LoadConfig
from corral_core.weights.memory_estimate import MIB, estimate_memory
from tests.core.weights.test_memory_estimate import SMOLLM2
from tests.support.gguf_files import gguf_bytes
from tests.support.projector_headers import WEIGHTS, projector_bytes
from tests.support.pulled_store import publish


def _spec(*adapters: str, sha256: str | None = None) -> ModelSpec:
    listed = [{"name": f"a{number}", "source": f"pvc://claim/{path}"} for number, path in enumerate(adapters)]
    return ModelSpec.model_validate({"source": "pvc://claim/model.gguf", "sha256": sha256, "adapters": listed})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.gguf").write_bytes(gguf_bytes())
    for name, size in (("one", 300), ("two", 50)):
        (tmp_path / name).write_bytes(b"x" * size)
    return tmp_path


def test_adapters_size_is_the_sum_of_their_files(folder: Path) -> None:
    assert read_model_metadata(_spec(), WeightsRoots(folder)).adapters_size == 0
    assert read_model_metadata(_spec("one", "two"), WeightsRoots(folder)).adapters_size == 350


def test_missing_adapter_is_named(folder: Path) -> None:
    with pytest.raises(SourceError, match="three"):
        read_model_metadata(_spec("one", "three"), WeightsRoots(folder))


def test_metadata_matches_only_the_files_it_was_read_from(folder: Path) -> None:
    metadata = read_model_metadata(_spec("one"), WeightsRoots(folder))
    assert matches_spec(metadata, _spec("one"))
    for other in (_spec(), _spec("two"), _spec("one", "two"), _spec("one", sha256="0" * 64)):
        assert not matches_spec(metadata, other)


def test_metadata_with_adapters_round_trip(folder: Path) -> None:
    metadata = read_model_metadata(_spec("one", "two"), WeightsRoots(folder))
    assert decode_metadata(encode_metadata(metadata)) == metadata
    assert ModelMetadata.from_json(metadata.to_json()) == metadata


def test_digest_of_the_maximum_of_adapters_is_short() -> None:
    assert len(adapters_digest(_spec(*(f"{number}/{'x' * 2000}" for number in range(16))))) == 16


def test_the_projector_of_the_spec_is_part_of_the_metadata(folder: Path) -> None:
    (folder / "mmproj.gguf").write_bytes(projector_bytes())
    spec = ModelSpec.model_validate({"source": "pvc://claim/model.gguf", "projector": "pvc://claim/mmproj.gguf"})
    metadata = read_model_metadata(spec, WeightsRoots(folder))
    assert metadata.families == ("llama", "clip")
    assert metadata.capabilities == ("completion", "vision")
    assert metadata.projector_info["clip.projector_type"] == "gemma3"
    assert metadata.dimensions is not None
    assert metadata.dimensions.projector == WEIGHTS
    assert decode_metadata(encode_metadata(metadata)) == ModelMetadata.from_json(metadata.to_json()) == metadata
    assert matches_spec(metadata, spec)
    assert not matches_spec(metadata, _spec())


def test_the_projector_of_a_pulled_source_is_part_of_the_metadata(folder: Path) -> None:
    (folder / "mmproj.gguf").write_bytes(projector_bytes())
    files = {folder / "model.gguf": FileRole.WEIGHTS, folder / "mmproj.gguf": FileRole.PROJECTOR}
    snapshot = publish(folder / "store", "hf://a/b", files)
    roots = WeightsRoots(store=folder / "store", snapshots={"hf://a/b": snapshot.id})
    assert "clip" in read_model_metadata(ModelSpec.model_validate({"source": "hf://a/b"}), roots).families


def test_a_projector_of_a_source_that_encodes_no_images_is_left_out(folder: Path) -> None:
    (folder / "mmproj.gguf").write_bytes(projector_bytes(has_vision_encoder=False))
    files = {folder / "model.gguf": FileRole.WEIGHTS, folder / "mmproj.gguf": FileRole.PROJECTOR}
    snapshot = publish(folder / "store", "hf://a/b", files)
    roots = WeightsRoots(store=folder / "store", snapshots={"hf://a/b": snapshot.id})
    assert read_model_metadata(ModelSpec.model_validate({"source": "hf://a/b"}), roots).families == ("llama",)


def test_a_file_that_is_no_projector_is_named(folder: Path) -> None:
    spec = ModelSpec.model_validate({"source": "pvc://claim/model.gguf", "projector": "pvc://claim/model.gguf"})
    with pytest.raises(GGUFError, match=r"model\.gguf is not a projector"):
        read_model_metadata(spec, WeightsRoots(folder))


def test_adapters_count_in_the_estimate() -> None:
    without, made = (estimate_memory(SMOLLM2, LoadConfig(4096, 4), adapters=size) for size in (0, 10 * MIB + 1))
    assert made.engine - without.engine == made.total - without.total == 11 * MIB
    assert "weights 93, adapters 11, KV cache" in str(made)
