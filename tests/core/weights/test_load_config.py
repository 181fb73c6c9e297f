"""Load configuration: context length, parallel requests, KV cache type and their precedence."""

from __future__ import annotations

import dataclasses

import pytest

from corral_core.base.errors import InvalidSetting
from corral_core.contracts.model_metadata import ModelDimensions, ModelMetadata
from corral_core.model.model import ModelSpec
from corral_core.weights.load_config import (
    EmbeddingContext,
    context_length,
    embedding_context,
    growth_lengths,
    load_configs,
    load_request,
    longer_configs,
    supports_chunked_embedding,
)


def _spec(**fields: object) -> ModelSpec:
    return ModelSpec.model_validate({"source": "file:///a.gguf", **fields})


def _embedder(family: str, **info: object) -> ModelMetadata:
    info = {f"{family}.{key}": value for key, value in info.items()}
    return dataclasses.replace(FACTS, family=family, capabilities=("embedding",), context_length=512, info=info)


FACTS = ModelMetadata(1, "llama", ("llama",), "1B", 10**9, "Q4_0", 8192, 1, ("completion",), "")
SETTINGS = {
    "OLLAMA_CONTEXT_LENGTH": "2048",
    "OLLAMA_NUM_PARALLEL": "2",
    "OLLAMA_KV_CACHE_TYPE": "q8_0",
    "OLLAMA_FLASH_ATTENTION": "0",
}


@pytest.mark.parametrize(("requested", "expected"), [(512, 2048), (4096, 4096), (0, 4096)])
def test_a_model_with_a_projector_has_the_minimum_context_of_ollama(requested: int, expected: int) -> None:
    request = dataclasses.replace(load_request(_spec(), {}), context_length=requested)
    metadata = dataclasses.replace(FACTS, dimensions=ModelDimensions(1, projector=1))
    assert {config.context_length for config in load_configs(request, metadata)} == {expected}


def test_defaults_are_automatic() -> None:
    wanted = load_request(_spec(), {})
    assert (wanted.context_length, wanted.parallel, wanted.batch_size, wanted.kv_cache_type) == (0, 0, 512, "f16")
    assert wanted.flash_attention is None


def test_settings_of_the_installation_are_used() -> None:
    wanted = load_request(_spec(), SETTINGS)
    assert (wanted.context_length, wanted.parallel, wanted.kv_cache_type, wanted.flash_attention) == (
        2048,
        2,
        "q8_0",
        False,
    )


def test_spec_overrides_parameters_and_parameters_override_settings() -> None:
    assert load_request(_spec(parameters={"num_ctx": 1024}), SETTINGS).context_length == 1024
    assert load_request(_spec(contextLength=512, parameters={"num_ctx": 1024}), SETTINGS).context_length == 512
    assert load_request(_spec(parallel=8), SETTINGS).parallel == 8


def test_the_context_length_of_the_placement_overrides_the_spec() -> None:
    passed = {"CORRAL_CONTEXT_LENGTH": "8192", **SETTINGS}
    assert load_request(_spec(contextLength=512, parameters={"num_ctx": 1024}), passed).context_length == 8192


def test_only_an_automatic_context_length_grows_with_the_gpus() -> None:
    assert longer_configs(load_request(_spec(), SETTINGS), FACTS) == ()
    ((memory, configs),) = longer_configs(load_request(_spec(), {}), FACTS)
    assert memory == 23 << 30
    assert [(config.context_length, config.parallel, config.context_passed) for config in configs] == [
        (8192, 4, True),
        (8192, 1, True),
    ]


def test_a_context_grows_by_doubling_up_to_the_trained_one_or_the_models_limit() -> None:
    assert growth_lengths(_spec(contextPolicy="Grow"), FACTS, 1000) == (2000, 4000, 8000, 8192)
    assert growth_lengths(_spec(contextPolicy="Grow", maxContextLength=5000), FACTS, 1000) == (2000, 4000, 5000)
    assert growth_lengths(_spec(contextPolicy="Grow", maxContextLength=500), FACTS, 1000) == ()
    assert growth_lengths(_spec(), FACTS, 1000) == ()


def test_invalid_setting_is_rejected() -> None:
    with pytest.raises(InvalidSetting, match="OLLAMA_KV_CACHE_TYPE"):
        load_request(_spec(), {"OLLAMA_KV_CACHE_TYPE": "q3"})


@pytest.mark.parametrize(
    ("wanted", "trained", "length"),
    [(0, 8192, 4096), (0, 2048, 2048), (16384, 8192, 8192), (1, 8192, 4), (100, 0, 100)],
)
def test_context_length_is_at_most_the_trained_one(wanted: int, trained: int, length: int) -> None:
    assert context_length(wanted, trained) == length


def test_automatic_parallel_is_four_then_one() -> None:
    assert [load.parallel for load in load_configs(load_request(_spec(), {}), FACTS)] == [4, 1]
    assert [load.parallel for load in load_configs(load_request(_spec(parallel=3), {}), FACTS)] == [3]


def test_batch_size_is_at_most_the_total_context() -> None:
    assert [load.batch_size for load in load_configs(load_request(_spec(contextLength=100), {}), FACTS)] == [400, 100]


def test_batch_has_a_token_for_every_sequence() -> None:
    assert [load.batch_size for load in load_configs(load_request(_spec(parameters={"num_batch": 1}), {}), FACTS)] == [
        4,
        1,
    ]


def test_embedding_model_does_not_generate() -> None:
    (load,) = load_configs(load_request(_spec(parallel=8), {}), _embedder("bert", pooling_type=1))
    assert (load.generates, load.parallel, load.embedding) == (False, 1, EmbeddingContext(512, 512))


@pytest.mark.parametrize(("family", "pooling", "pieces"), [("qwen3", 3, True), ("qwen3", 1, False), ("bert", 3, False)])
def test_causal_model_with_last_token_pooling_embeds_in_batches(family: str, pooling: int, pieces: bool) -> None:
    assert supports_chunked_embedding(_embedder(family, pooling_type=pooling)) == pieces


def test_generative_model_embeds_if_enabled() -> None:
    enabled = load_configs(load_request(_spec(embeddings=True), {}), FACTS)
    assert [load.embedding for load in enabled] == [EmbeddingContext(4096 + 512, 512)] * 2
    assert [load.embedding for load in load_configs(load_request(_spec(), {}), FACTS)] == [None, None]


@pytest.mark.parametrize(
    ("context", "chunked", "size"),
    [(100, True, (228, 128)), (100, False, (128, 128)), (4096, True, (4608, 512)), (4096, False, (4096, 4096))],
)
def test_embedding_batch_is_a_multiple_of_the_number_of_inputs(
    context: int, chunked: bool, size: tuple[int, int]
) -> None:
    assert embedding_context(context, chunked=chunked) == EmbeddingContext(*size)


def test_draft_tokens_have_outputs() -> None:
    assert load_configs(load_request(_spec(), {}), FACTS)[0].outputs_per_sequence == 1
    assert load_configs(load_request(_spec(), {"CORRAL_SPECULATION": "4"}), FACTS)[0].outputs_per_sequence == 5
    assert load_request(_spec(parameters={"draft_num_predict": 0}), {"CORRAL_SPECULATION": "4"}).max_draft_tokens == 0
    with pytest.raises(InvalidSetting, match="CORRAL_SPECULATION"):
        load_request(_spec(), {"CORRAL_SPECULATION": "17"})
