"""The files of a Model, read together."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral_core.errors import SourceError
from corral_core.estimate import MIB, estimate
from corral_core.facts import ModelFacts
from corral_core.load import Load
from corral_core.model import ModelSpec
from corral_core.packed import pack, unpack
from corral_core.weights import adapters_digest, are_of, read_model
from tests.core.test_estimate import SMOLLM2
from tests.support.gguf_files import gguf_bytes


def _spec(*adapters: str, sha256: str | None = None) -> ModelSpec:
    listed = [{"name": f"a{number}", "source": f"pvc://claim/{path}"} for number, path in enumerate(adapters)]
    return ModelSpec.model_validate({"source": "pvc://claim/model.gguf", "sha256": sha256, "adapters": listed})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.gguf").write_bytes(gguf_bytes())
    for name, size in (("one", 300), ("two", 50)):
        (tmp_path / name).write_bytes(b"x" * size)
    return tmp_path


def test_adapters_are_counted_by_the_sizes_of_their_files(folder: Path) -> None:
    assert read_model(_spec(), folder).adapters_size == 0
    assert read_model(_spec("one", "two"), folder).adapters_size == 350


def test_a_missing_adapter_is_named(folder: Path) -> None:
    with pytest.raises(SourceError, match="three"):
        read_model(_spec("one", "three"), folder)


def test_facts_are_of_the_files_that_they_were_read_for(folder: Path) -> None:
    facts = read_model(_spec("one"), folder)
    assert are_of(facts, _spec("one"))
    for other in (_spec(), _spec("two"), _spec("one", "two"), _spec("one", sha256="0" * 64)):
        assert not are_of(facts, other)


def test_facts_with_adapters_come_back_whole(folder: Path) -> None:
    facts = read_model(_spec("one", "two"), folder)
    assert unpack(pack(facts)) == facts
    assert ModelFacts.from_json(facts.to_json()) == facts


def test_as_many_adapters_as_there_may_be_are_told_in_few_characters() -> None:
    assert len(adapters_digest(_spec(*(f"{number}/{'x' * 2000}" for number in range(16))))) == 16


def test_adapters_count_in_the_estimate() -> None:
    without, made = (estimate(SMOLLM2, Load(4096, 4), adapters=size) for size in (0, 10 * MIB + 1))
    assert made.engine - without.engine == made.total - without.total == 11 * MIB
    assert "weights 93, adapters 11, KV cache" in str(made)
