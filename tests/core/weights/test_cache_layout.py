"""KV cache and recurrent state of architectures; tests/runner compares real models with llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from corral_core.weights.cache_layout import CacheLayout, LayerCache, cache_layout
from corral_core.weights.gguf import read_header
from corral_core.weights.header_numbers import HeaderNumbers
from tests.support.gguf_files import ARRAY, BOOL, I32, TypedValue, Value, gguf_bytes

DECODER: Mapping[str, Value] = {
    "block_count": 4,
    "embedding_length": 64,
    "attention.head_count": 8,
    "attention.head_count_kv": 2,
    "attention.key_length": 16,
    "attention.value_length": 8,
}
MAMBA: Mapping[str, Value] = {"ssm.conv_kernel": 4, "ssm.inner_size": 32, "ssm.state_size": 16, "ssm.group_count": 2}
MAMBA_STATE = 3 * (32 + 2 * 2 * 16) + 16 * 32


def _layout(folder: Path, architecture: str, values: Mapping[str, Value]) -> CacheLayout:
    path = folder / "model.gguf"
    numbers = {f"{architecture}.{key}": value for key, value in values.items()}
    path.write_bytes(gguf_bytes({"general.architecture": architecture, **numbers}))
    return cache_layout(HeaderNumbers(read_header(path)))


def _numbers(*items: int) -> TypedValue:
    return TypedValue(ARRAY, list(items), item=I32)


def test_every_layer_of_a_decoder_has_keys_and_values(tmp_path: Path) -> None:
    assert _layout(tmp_path, "llama", DECODER) == CacheLayout(
        keys=4 * 32, values=4 * 16, padded_values=4 * 16, layers=(LayerCache(32, 16),) * 4
    )


def test_without_flash_attention_values_have_the_width_of_the_widest_layer(tmp_path: Path) -> None:
    layout = _layout(tmp_path, "llama", {**DECODER, "attention.head_count_kv": _numbers(0, 1, 2, 4)})
    assert (layout.values, layout.padded_values) == (7 * 8, 4 * 4 * 8)


def test_latent_attention_caches_one_vector_per_token(tmp_path: Path) -> None:
    mla = {"attention.head_count_kv": 1, "attention.key_length_mla": 12, "attention.value_length_mla": 8}
    assert _layout(tmp_path, "deepseek2", {**DECODER, **mla}) == CacheLayout(keys=4 * 16, layers=(LayerCache(16),) * 4)


def test_layers_that_predict_further_tokens_have_no_cache(tmp_path: Path) -> None:
    layout = _layout(tmp_path, "glm4moe", {**DECODER, "nextn_predict_layers": 1})
    assert (layout.keys, layout.layers[3]) == (3 * 32, LayerCache())


@pytest.mark.parametrize("architecture", ["bert", "nomic-bert", "gemma-embedding"])
def test_an_encoder_has_no_cache(tmp_path: Path, architecture: str) -> None:
    assert _layout(tmp_path, architecture, DECODER) == CacheLayout(layers=(LayerCache(),) * 4)


def test_layers_may_share_the_cache_of_others(tmp_path: Path) -> None:
    assert _layout(tmp_path, "gemma4", {**DECODER, "attention.shared_kv_layers": 3}).keys == 32
    assert _layout(tmp_path, "gemma3n", {**DECODER, "block_count": 30}).keys == 20 * 32


def test_heads_of_layers_with_a_sliding_window_have_their_own_length(tmp_path: Path) -> None:
    values = {**DECODER, "attention.key_length_swa": 4, "attention.value_length_swa": 4}
    pattern = TypedValue(ARRAY, [True, True, False, True], item=BOOL)
    layout = _layout(tmp_path, "gemma4", {**values, "attention.sliding_window_pattern": pattern})
    assert (layout.keys, layout.values) == (2 * (16 + 3 * 4), 2 * (8 + 3 * 4))
    assert _layout(tmp_path, "gemma4", values).keys == 4 * 32, "the longer one, if the layers are not listed"


def test_layers_that_are_computed_several_times_have_a_cache_each_time(tmp_path: Path) -> None:
    assert _layout(tmp_path, "nanbeige", {**DECODER, "num_loops": 2}).keys == 2 * 4 * 32


def test_an_indexer_caches_one_more_key(tmp_path: Path) -> None:
    mla = {"attention.head_count_kv": 1, "attention.key_length_mla": 12, "attention.value_length_mla": 8}
    indexer = {**DECODER, **mla, "attention.indexer.key_length": 10}
    assert _layout(tmp_path, "deepseek32", indexer) == CacheLayout(keys=4 * (16 + 10), layers=(LayerCache(26),) * 4)


def test_a_recurrent_model_has_only_state(tmp_path: Path) -> None:
    layout = _layout(tmp_path, "mamba2", {**DECODER, **MAMBA})
    layers = (LayerCache(state=MAMBA_STATE),) * 4
    assert layout == CacheLayout(state=4 * MAMBA_STATE, layer_state=MAMBA_STATE, layers=layers)


def test_layers_of_a_hybrid_model_without_heads_are_recurrent(tmp_path: Path) -> None:
    layout = _layout(tmp_path, "jamba", {**DECODER, **MAMBA, "attention.head_count_kv": _numbers(0, 2, 0, 0)})
    assert (layout.keys, layout.padded_values, layout.state) == (32, 16, 3 * MAMBA_STATE)


def test_layers_may_have_both(tmp_path: Path) -> None:
    layout = _layout(tmp_path, "falcon-h1", {**DECODER, **MAMBA})
    assert (layout.keys, layout.state) == (4 * 32, 4 * MAMBA_STATE)


def test_a_feed_forward_layer_is_not_recurrent(tmp_path: Path) -> None:
    heads, inner = _numbers(0, 0, 2, 0), _numbers(0, 64, 0, 0)
    layout = _layout(
        tmp_path,
        "nemotron_h",
        {**DECODER, **MAMBA, "attention.head_count_kv": heads, "feed_forward_length": inner},
    )
    assert (layout.keys, layout.state) == (32, 2 * MAMBA_STATE)


def test_every_nth_layer_may_attend(tmp_path: Path) -> None:
    layout = _layout(tmp_path, "qwen3next", {**DECODER, **MAMBA})
    assert (layout.keys, layout.state) == (32, 3 * MAMBA_STATE)
    layout = _layout(tmp_path, "qwen35", {**DECODER, **MAMBA, "full_attention_interval": 2})
    assert (layout.keys, layout.state) == (2 * 32, 2 * MAMBA_STATE)
    listed = {**DECODER, **MAMBA, "attention.recurrent_layers": TypedValue(ARRAY, [True, True, True, True], item=BOOL)}
    assert (_layout(tmp_path, "qwen35", listed).keys, _layout(tmp_path, "qwen35", listed).state) == (0, 4 * MAMBA_STATE)


@pytest.mark.parametrize(
    ("architecture", "values", "state"),
    [
        ("rwkv7", {"wkv.head_size": 8}, 64 * (2 + 8)),
        ("lfm2", {"shortconv.l_cache": 3, "attention.head_count_kv": 0}, 64 * 2),
        ("kimi-linear", {"kda.head_dim": 8, "ssm.conv_kernel": 4, "attention.head_count_kv": 0}, 8 * 8 * (9 + 8)),
        ("minimax-01", {"full_attention_interval": 8}, 8 * 16 * 16),
    ],
)
def test_state_of_other_recurrent_layers(
    tmp_path: Path, architecture: str, values: Mapping[str, Value], state: int
) -> None:
    assert _layout(tmp_path, architecture, {**DECODER, **values}).layer_state == state
