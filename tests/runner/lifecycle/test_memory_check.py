"""What a container's memory is, and that weights which do not fit it are refused before they are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.weights.gguf_metadata import read_metadata
from corral_core.weights.load_config import LoadConfig
from corral_core.weights.memory_estimate import MIB, REQUEST_BYTES, estimate_memory
from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.embedding import EmbeddingOptions
from corral_server.runner.lifecycle.memory_check import fit_options
from corral_server.runner.llama.errors import LoadFailed
from corral_server.system.cgroup_memory import ContainerMemory, container_memory
from tests.support.tiny_model import write_tiny_model

OPTIONS = EngineOptions(context_length=2048)


def memory(root: Path, membership: str, files: dict[str, str]) -> tuple[int, int] | None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    member = root / "membership"
    member.write_text(membership)
    found = container_memory(root, member)
    return (found.limit, found.used) if found is not None else None


def test_version_2_has_a_limit_and_what_is_used_without_files(tmp_path: Path) -> None:
    stat = "anon 300\nfile 600\ninactive_file 500\nactive_file 100\n"
    files = {"pod/memory.max": "1000\n", "pod/memory.current": "900\n", "pod/memory.stat": stat}
    assert memory(tmp_path, "0::/pod\n", files) == (1000, 300)


def test_version_1_counts_the_children_too(tmp_path: Path) -> None:
    stat = "inactive_file 1\ntotal_inactive_file 500\ntotal_active_file 100\n"
    folder = "memory/pod/memory."
    files = {f"{folder}limit_in_bytes": "1000\n", f"{folder}usage_in_bytes": "900\n", f"{folder}stat": stat}
    assert memory(tmp_path, "4:memory:/pod\n0::/\n", files) == (1000, 300)


def test_the_limit_that_leaves_least_counts(tmp_path: Path) -> None:
    files = {
        "pod/one/memory.max": "1000\n",
        "pod/one/memory.current": "100\n",
        "pod/memory.max": "2000\n",
        "pod/memory.current": "1900\n",
        "memory.max": "max\n",
        "memory.current": "5000\n",
    }
    assert memory(tmp_path, "0::/pod/one\n", files) == (2000, 1900)


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", "", "many", "-1"])
def test_no_limit_or_a_senseless_one_is_none(tmp_path: Path, limit: str) -> None:
    files = {"memory.max": limit, "memory.current": "5\n", "memory/memory.limit_in_bytes": limit}
    assert memory(tmp_path, "0::/\n1:memory:/\n", {**files, "memory/memory.usage_in_bytes": "5\n"}) is None


@pytest.fixture
def metadata(tmp_path: Path) -> ModelMetadata:
    return read_metadata(write_tiny_model(tmp_path))


def needed(metadata: ModelMetadata, parallel: int) -> int:
    assert metadata.dimensions is not None
    return estimate_memory(metadata.dimensions, LoadConfig(2048, parallel)).engine


def test_as_many_slots_are_taken_as_fit(metadata: ModelMetadata) -> None:
    for free, slots in ((needed(metadata, 4), 4), (needed(metadata, 4) - 1, 1), (needed(metadata, 1), 1)):
        memory = ContainerMemory(free + REQUEST_BYTES + 5, 5)
        assert fit_options(OPTIONS, metadata, memory=memory).slots == slots


def test_slots_leave_memory_for_requests(metadata: ModelMetadata) -> None:
    assert fit_options(OPTIONS, metadata, memory=ContainerMemory(needed(metadata, 4) + REQUEST_BYTES - 1, 0)).slots == 1


def test_weights_that_do_not_fit_are_refused_with_the_numbers(metadata: ModelMetadata) -> None:
    with pytest.raises(LoadFailed) as refused:
        fit_options(OPTIONS, metadata, memory=ContainerMemory(64 * MIB, 63 * MIB))
    text = str(refused.value)
    assert "does not fit in the container's memory" in text
    assert "weights 1, " in text
    assert "KV cache 1 for 1 x 2048 tokens" in text
    assert text.endswith("only 1 MiB of the limit of 64 MiB is free")


def test_a_number_of_slots_that_was_asked_for_is_not_changed_but_may_be_refused(metadata: ModelMetadata) -> None:
    options = EngineOptions(context_length=2048, slots=64)
    assert fit_options(options, metadata, memory=ContainerMemory(needed(metadata, 64), 0)) == options
    with pytest.raises(LoadFailed, match="64 x 2048 tokens"):
        fit_options(options, metadata, memory=ContainerMemory(needed(metadata, 32), 0))


def test_without_a_limit_or_with_gpus_nothing_is_refused(metadata: ModelMetadata) -> None:
    assert fit_options(OPTIONS, metadata, memory=None) == OPTIONS
    assert fit_options(OPTIONS, metadata, memory=ContainerMemory(1, 0), on_gpus=True) == OPTIONS


def test_embeddings_count(metadata: ModelMetadata) -> None:
    options = EngineOptions(context_length=2048, slots=4, embedding=EmbeddingOptions(chunked=True))
    enough_without = ContainerMemory(needed(metadata, 4) + REQUEST_BYTES, 0)
    assert fit_options(OPTIONS, metadata, memory=enough_without).slots == 4
    with pytest.raises(LoadFailed, match="embeddings of 2048 tokens"):
        fit_options(options, metadata, memory=ContainerMemory(needed(metadata, 1), 0))
