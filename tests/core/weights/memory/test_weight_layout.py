"""Bytes of the weights by layer."""

from __future__ import annotations

from pathlib import Path

from corral_core.weights.gguf import read_header
from corral_core.weights.memory.weight_layout import LayerWeights, WeightLayout, weight_layout
from tests.support.gguf_files import LLAMA, FakeTensor, Value, gguf_bytes

TOKENS = FakeTensor("token_embd.weight", (512, 4), 8)
TOKENS_SIZE = 4 * 16 * 34


def _layout(folder: Path, *tensors: FakeTensor, values: dict[str, Value] | None = None) -> WeightLayout:
    path = folder / "model.gguf"
    path.write_bytes(gguf_bytes({**LLAMA, **(values or {})}, tensors))
    return weight_layout(read_header(path), 2)


def test_tensors_belong_to_the_input_their_layer_or_the_output(tmp_path: Path) -> None:
    layout = _layout(
        tmp_path,
        TOKENS,
        FakeTensor("blk.0.attn_q.weight", (32,)),
        FakeTensor("blk.1.ffn_up_exps.weight", (64, 8)),
        FakeTensor("blk.1.ffn_up_shexp.weight", (64, 2)),
        FakeTensor("output_norm.weight", (32,)),
        FakeTensor("output.weight", (64, 4)),
    )
    assert layout.input == TOKENS_SIZE
    assert layout.layers == (LayerWeights(128), LayerWeights(2048 + 512, 2048))
    assert (layout.output, layout.largest) == (128 + 1024, 2048)


def test_a_model_without_an_output_tensor_has_its_token_embeddings_twice(tmp_path: Path) -> None:
    layout = _layout(tmp_path, TOKENS, FakeTensor("output_norm.weight", (32,)))
    assert (layout.input, layout.output) == (TOKENS_SIZE, TOKENS_SIZE + 128)


def test_an_encoder_has_no_output_layer(tmp_path: Path) -> None:
    layout = _layout(tmp_path, TOKENS, FakeTensor("token_embd_norm.weight", (32,)), values={"llama.pooling_type": 1})
    assert (layout.input, layout.output, layout.layers[0]) == (TOKENS_SIZE, 0, LayerWeights(128))


def test_frequencies_of_positions_are_with_every_layer(tmp_path: Path) -> None:
    assert _layout(tmp_path, FakeTensor("rope_freqs.weight", (64,))).layers == (LayerWeights(256),) * 2


def test_tensors_of_unknown_layers_count_for_the_output(tmp_path: Path) -> None:
    assert _layout(tmp_path, FakeTensor("blk.2.attn_q.weight", (64,)), FakeTensor("x", (64,))).output == 512


def test_rows_of_quantized_tensors_are_padded_to_512_elements(tmp_path: Path) -> None:
    padded = 3 * 2 * 34 + 14 * 34
    layout = _layout(tmp_path, FakeTensor("blk.0.a", (64, 3), 8), FakeTensor("blk.1.a", (64, 3)))
    assert layout.layers == (LayerWeights(-(-padded // 128) * 128), LayerWeights(768))
