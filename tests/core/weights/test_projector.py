"""Header of a projector, and the memory that it takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from corral_core.base.errors import GGUFError
from corral_core.weights.load_config import LoadConfig
from corral_core.weights.memory.layer_split import GpuOptions
from corral_core.weights.memory_estimate import IMAGE_REQUEST_BYTES, MIB, REQUEST_BYTES, estimate_memory
from corral_core.weights.projector import ProjectorMetadata, read_projector
from tests.core.weights.memory.test_device_memory import DIMENSIONS, LOAD
from tests.support.gguf_files import gguf_bytes
from tests.support.projector_headers import WEIGHTS, projector_bytes

WITH_PROJECTOR = replace(DIMENSIONS, projector=800 * MIB, projector_compute=200 * MIB)


def read(folder: Path, data: bytes) -> ProjectorMetadata:
    path = folder / "mmproj.gguf"
    path.write_bytes(data)
    return read_projector(path)


def test_weights_are_the_sizes_of_the_tensors(tmp_path: Path) -> None:
    assert read(tmp_path, projector_bytes()).weights == WEIGHTS


def test_the_compute_buffer_has_the_states_of_all_patches(tmp_path: Path) -> None:
    """Gemma 3: 4,096 patches of 6 states of 1,152 values and two of 4,304, and the pixels twice."""
    assert 240 * MIB < read(tmp_path, projector_bytes()).compute < 300 * MIB


def test_an_image_that_keeps_its_size_counts_with_its_largest_one(tmp_path: Path) -> None:
    fixed = read(tmp_path, projector_bytes())
    values = projector_bytes(projector_type="qwen2.5vl_merger", vision__image_size=560, vision__spatial_merge_size=2)
    assert read(tmp_path, values).compute > 3 * fixed.compute
    assert read(tmp_path, projector_bytes(vision__image_max_pixels=4 * 896 * 896)).compute > 3 * fixed.compute


def test_hostile_numbers_are_bounded(tmp_path: Path) -> None:
    largest = 2**24
    values = dict.fromkeys(("vision__embedding_length", "vision__image_size", "vision__feed_forward_length"), largest)
    assert read(tmp_path, projector_bytes(**values, vision__patch_size=0)).compute < 2**53
    assert read(tmp_path, projector_bytes(vision__spatial_merge_size=largest, projector_type="lfm2")).compute < 2**40


def test_other_files_are_no_projectors(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match="architecture"):
        read(tmp_path, gguf_bytes())
    with pytest.raises(GGUFError, match="audio"):
        read(tmp_path, projector_bytes(has_vision_encoder=False))
    with pytest.raises(GGUFError, match=r"lacks clip\.projector_type"):
        read(tmp_path, projector_bytes(projector_type=""))


@pytest.mark.parametrize("kind", ["deepseek4v", "hunyuanvl"])
def test_projectors_whose_images_depend_on_one_another_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(GGUFError, match=f"type {kind} are not supported"):
        read(tmp_path, projector_bytes(projector_type=kind))


def test_without_gpus_the_projector_is_in_host_memory() -> None:
    without, made = (estimate_memory(dims, LOAD) for dims in (DIMENSIONS, WITH_PROJECTOR))
    assert made.projector == made.engine - without.engine == 1000 * MIB
    assert "projector 1000, KV cache" in str(made)


def test_with_gpus_the_projector_is_on_the_first_one() -> None:
    without, made = (estimate_memory(dims, LOAD, gpus=2) for dims in (DIMENSIONS, WITH_PROJECTOR))
    assert [after - before for before, after in zip(without.devices, made.devices, strict=True)] == [1000 * MIB, 0]
    assert made.projector == 0


def test_without_layers_on_gpus_the_projector_is_in_host_memory() -> None:
    made = estimate_memory(WITH_PROJECTOR, LOAD, gpus=1, options=GpuOptions(layers=0))
    assert (made.projector, made.gpus[0].projector) == (1000 * MIB, 0)


def test_requests_with_images_have_further_memory() -> None:
    made = (estimate_memory(dims, LoadConfig(4096, 1)).requests for dims in (DIMENSIONS, WITH_PROJECTOR))
    assert list(made) == [REQUEST_BYTES, REQUEST_BYTES + IMAGE_REQUEST_BYTES]
