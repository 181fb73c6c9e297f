"""Which context, how many requests at once, and which cache a runner gets, and who has the say."""

from __future__ import annotations

import dataclasses

import pytest

from corral_core.errors import InvalidSetting
from corral_core.facts import ModelFacts
from corral_core.load import context_length, loads, reads_in_pieces, wish
from corral_core.model import ModelSpec


def _spec(**fields: object) -> ModelSpec:
    return ModelSpec.model_validate({"source": "file:///a.gguf", **fields})


def _embedder(family: str, **info: object) -> ModelFacts:
    info = {f"{family}.{key}": value for key, value in info.items()}
    return dataclasses.replace(FACTS, family=family, capabilities=("embedding",), context_length=512, info=info)


FACTS = ModelFacts(1, "llama", ("llama",), "1B", 10**9, "Q4_0", 8192, 1, ("completion",), "")
SETTINGS = {
    "OLLAMA_CONTEXT_LENGTH": "2048",
    "OLLAMA_NUM_PARALLEL": "2",
    "OLLAMA_KV_CACHE_TYPE": "q8_0",
    "OLLAMA_FLASH_ATTENTION": "0",
}


def test_without_a_word_from_anybody_all_is_automatic() -> None:
    wanted = wish(_spec(), {})
    assert (wanted.context, wanted.parallel, wanted.batch, wanted.cache_type) == (0, 0, 512, "f16")
    assert wanted.flash_attention is None


def test_the_installations_settings_count() -> None:
    wanted = wish(_spec(), SETTINGS)
    assert (wanted.context, wanted.parallel, wanted.cache_type, wanted.flash_attention) == (2048, 2, "q8_0", False)


def test_the_models_own_word_goes_before_its_parameters_and_the_settings() -> None:
    assert wish(_spec(parameters={"num_ctx": 1024}), SETTINGS).context == 1024
    assert wish(_spec(contextLength=512, parameters={"num_ctx": 1024}), SETTINGS).context == 512
    assert wish(_spec(parallel=8), SETTINGS).parallel == 8


def test_a_setting_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="OLLAMA_KV_CACHE_TYPE"):
        wish(_spec(), {"OLLAMA_KV_CACHE_TYPE": "q3"})


@pytest.mark.parametrize(
    ("wanted", "trained", "length"),
    [(0, 8192, 4096), (0, 2048, 2048), (16384, 8192, 8192), (1, 8192, 4), (100, 0, 100)],
)
def test_the_context_is_at_most_what_the_model_was_trained_for(wanted: int, trained: int, length: int) -> None:
    assert context_length(wanted, trained) == length


def test_automatic_is_four_at_once_and_then_one() -> None:
    assert [load.parallel for load in loads(wish(_spec(), {}), FACTS)] == [4, 1]
    assert [load.parallel for load in loads(wish(_spec(parallel=3), {}), FACTS)] == [3]


def test_a_batch_is_no_longer_than_all_contexts() -> None:
    assert [load.batch for load in loads(wish(_spec(contextLength=100), {}), FACTS)] == [400, 100]


def test_a_batch_has_room_for_a_token_of_every_request() -> None:
    assert [load.batch for load in loads(wish(_spec(parameters={"num_batch": 1}), {}), FACTS)] == [4, 1]


def test_a_model_for_embeddings_does_not_generate() -> None:
    (load,) = loads(wish(_spec(parallel=8), {}), _embedder("bert", pooling_type=1))
    assert (load.generates, load.parallel, load.embedding) == (False, 1, 512)


@pytest.mark.parametrize(("family", "pooling", "pieces"), [("qwen3", 3, True), ("qwen3", 1, False), ("bert", 3, False)])
def test_an_input_is_read_in_pieces_where_the_last_token_of_a_causal_model_counts(
    family: str, pooling: int, pieces: bool
) -> None:
    assert reads_in_pieces(_embedder(family, pooling_type=pooling)) == pieces


def test_what_generates_embeds_where_the_model_says_so() -> None:
    assert [load.embedding for load in loads(wish(_spec(embeddings=True), {}), FACTS)] == [512, 512]
    assert [load.embedding for load in loads(wish(_spec(), {}), FACTS)] == [0, 0]


def test_what_is_decoded_on_speculation_has_outputs_of_its_own() -> None:
    assert loads(wish(_spec(), {}), FACTS)[0].outputs == 1
    assert loads(wish(_spec(), {"CORRAL_SPECULATION": "4"}), FACTS)[0].outputs == 5
    assert wish(_spec(parameters={"draft_num_predict": 0}), {"CORRAL_SPECULATION": "4"}).draft == 0
    with pytest.raises(InvalidSetting, match="CORRAL_SPECULATION"):
        wish(_spec(), {"CORRAL_SPECULATION": "17"})
