"""Translations of Ollama's formats for llama.cpp: names, keys and hidden tensors; the data stays as it is.

The differences are those that Ollama's ``llama/compat/llama-ollama-compat.cpp`` handles when it loads these files; a
test shows for each that llama.cpp refuses a file of the format and answers from the translated one. Vision towers are
left out: a translated file is the text model alone.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final

from corral_core.base.errors import GGUFError
from corral_core.weights.gguf import GGUFArray, GGUFHeader
from corral_core.weights.ollama.edits import (
    I32,
    U8,
    HeaderEdits,
    ReadValue,
    decoded_numbers,
    decoded_texts,
    encoded_numbers,
)
from corral_core.weights.ollama.markers import ollama_only

_NORMAL: Final = 1
_BYTE: Final = 6
"""Types of tokens, llama.cpp's ``enum llama_token_type``."""
_BYTE_TOKEN: Final = re.compile(rb"<0x..>")


def translate(header: GGUFHeader) -> HeaderEdits | None:
    """Return the changes that let llama.cpp load the weights.

    None if it loads them as they are, or if no translation is known (``ollama_only`` tells which).
    """
    translation = _TRANSLATIONS.get(header.get_str("general.architecture"))
    if translation is None or ollama_only(header) is None or "split.count" in header.values:
        return None
    edits = HeaderEdits(header)
    translation(edits)
    return edits if ollama_only(edits.header) is None else None


def _gemma3(edits: HeaderEdits) -> None:
    if edits.shape("dense.0.weight") is not None:
        _embedding_gemma(edits)
        return
    edits.copy("gemma3.rope.global.freq_base", "gemma3.rope.freq_base")
    edits.copy("gemma3.rope.local.freq_base", "gemma3.rope.freq_base_swa")
    edits.remove("gemma3.rope.global.freq_base")
    edits.remove("gemma3.rope.local.freq_base")
    _set_missing(edits, "gemma3.attention.layer_norm_rms_epsilon", 1e-6)
    _set_missing(edits, "gemma3.rope.freq_base", 1_000_000.0)
    _set_missing(edits, "gemma3.rope.freq_base_swa", 10_000.0)
    if edits.header.get_int("gemma3.context_length") >= 131_072 and not edits.has("gemma3.rope.scaling.type"):
        edits.set_text("gemma3.rope.scaling.type", "linear")  # the 1B model, whose context is shorter, has none
        _set_missing(edits, "gemma3.rope.scaling.factor", 8.0)
    _truncate_vocabulary(edits, edits.shape("token_embd.weight"))
    edits.hide_tensors("v.", "mm.")


def _bert(edits: HeaderEdits) -> None:
    """Decode the map of characters, which is a list of the characters of its Base64 form."""
    key = "tokenizer.ggml.precompiled_charsmap"
    edits.compute(key, GGUFArray(0, None, U8), lambda read: _charsmap(read(key)))


def _charsmap(data: bytes) -> bytes:
    text = b"".join(decoded_texts(data)).rstrip(b"=")
    try:
        return encoded_numbers(U8, base64.b64decode(text + b"=" * (-len(text) % 4), validate=True))
    except ValueError as error:
        raise GGUFError(f"the map of characters of the tokenizer is damaged: {error}") from error


def _embedding_gemma(edits: HeaderEdits) -> None:
    edits.set_architecture("gemma-embedding")
    edits.remove("gemma-embedding.attention.causal")
    edits.remove("gemma-embedding.attention.sliding_window_pattern")
    _set_missing(edits, "gemma-embedding.rope.freq_base_swa", 10_000.0)
    for number, new_number in ((0, 2), (1, 3)):
        shape = edits.shape(f"dense.{number}.weight")
        if shape is not None and len(shape) == 2:
            edits.set_int(f"gemma-embedding.dense_{new_number}_feat_in", shape[0])
            edits.set_int(f"gemma-embedding.dense_{new_number}_feat_out", shape[1])
        edits.rename_tensor(f"dense.{number}.weight", f"dense_{new_number}.weight")
    edits.rename_tensor("norm.weight", "output_norm.weight")


def _gemma3n(edits: HeaderEdits) -> None:
    """Drop the tokens of images and sounds, for which the layers have no embeddings."""
    embeddings = edits.shape("per_layer_token_embd.weight")
    rows = embeddings[1] if embeddings is not None and len(embeddings) == 2 else 0
    edits.hide_tensors("a.", "v.", "mm.")
    if not rows:
        return
    edits.set_text("tokenizer.ggml.model", "llama")
    edits.truncate_rows("token_embd.weight", rows)
    _truncate_vocabulary(edits, embeddings)
    if edits.has("tokenizer.ggml.token_type"):
        kinds = GGUFArray(rows, None, I32)
        edits.compute("tokenizer.ggml.token_type", kinds, lambda read: _gemma3n_token_types(read, rows))


def _gemma3n_token_types(read: ReadValue, count: int) -> bytes:
    """Encode the types of tokens; those of bytes and unused ones are wrong in the file."""
    types = list(decoded_numbers(read("tokenizer.ggml.token_type"))[:count])
    for number, token in enumerate(islice(decoded_texts(read("tokenizer.ggml.tokens")), len(types))):
        if _BYTE_TOKEN.fullmatch(token):
            types[number] = _BYTE
        elif token.startswith(b"<unused"):
            types[number] = _NORMAL
    return encoded_numbers(I32, types)


def _gemma4(edits: HeaderEdits) -> None:
    if edits.header.get_str("tokenizer.ggml.model") == "llama":
        edits.set_text("tokenizer.ggml.model", "gemma4")
    edits.rename_tensors(".ffn_gate_inp.per_expert_scale$", ".ffn_down_exps.scale")
    edits.hide_tensors("a.", "v.", "mm.", "model.vision_tower.")


def _glm4_moe_lite(edits: HeaderEdits) -> None:
    """Translate to DeepSeek 2, whose keys and values are of the compressed size and which has one head of them."""
    head = edits.header.get_int("glm4moelite.attention.key_length")
    edits.set_architecture("deepseek2")
    edits.set_int("deepseek2.attention.head_count_kv", 1)
    rank = edits.header.get_int("deepseek2.attention.kv_lora_rank")
    rotated = edits.header.get_int("deepseek2.rope.dimension_count")
    if rank and rotated:
        edits.set_int("deepseek2.attention.key_length", rank + rotated)
        edits.set_int("deepseek2.attention.value_length", rank)
    if head:
        edits.set_int("deepseek2.attention.key_length_mla", head)
        edits.set_int("deepseek2.attention.value_length_mla", head)
    for key in ("expert_group_count", "expert_group_used_count"):
        if not edits.has(f"deepseek2.{key}"):
            edits.set_int(f"deepseek2.{key}", 1)
    edits.set_text("tokenizer.ggml.pre", "glm4")
    ends = edits.header.values.get("tokenizer.ggml.eos_token_ids")
    for number, key in ((1, "tokenizer.ggml.eot_token_id"), (2, "tokenizer.ggml.eom_token_id")):
        if isinstance(ends, GGUFArray) and ends.items is not None and len(ends.items) > number and not edits.has(key):
            end = ends.items[number]
            if isinstance(end, int) and end >= 0:
                edits.set_int(key, end)


def _glm_ocr(edits: HeaderEdits) -> None:
    """Translate to GLM 4, which has the gate and the up projection in one matrix."""
    edits.set_architecture("glm4")
    _set_four_sections(edits, "glm4.rope.mrope_section")
    key_length = edits.header.get_int("glm4.attention.key_length")
    if key_length and not edits.has("glm4.rope.dimension_count"):
        edits.set_int("glm4.rope.dimension_count", key_length)
    edits.set_text("tokenizer.ggml.pre", "chatglm-bpe")
    edits.rename_tensors(".attn_out.", ".attn_output.")
    edits.rename_tensors(".post_attn_norm.", ".post_attention_norm.")
    edits.rename_tensors(".post_ffn_norm.", ".post_ffw_norm.")
    edits.join_rows(".ffn_gate.weight", ".ffn_up.weight")
    edits.hide_tensors("v.", "mm.")


def _deepseek_ocr(edits: HeaderEdits) -> None:
    edits.set_architecture("deepseek2-ocr")
    _set_missing(edits, "deepseek2-ocr.attention.layer_norm_rms_epsilon", 1e-6)
    experts, shared = edits.shape("blk.1.ffn_down_exps.weight"), edits.shape("blk.1.ffn_down_shexp.weight")
    if experts and not edits.has("deepseek2-ocr.expert_feed_forward_length"):
        edits.set_int("deepseek2-ocr.expert_feed_forward_length", experts[0])
    width = edits.header.get_int("deepseek2-ocr.expert_feed_forward_length")
    if shared and width and not edits.has("deepseek2-ocr.expert_shared_count"):
        edits.set_int("deepseek2-ocr.expert_shared_count", shared[0] // width)
    edits.hide_tensors("s.", "v.", "mm.")


def _laguna(edits: HeaderEdits) -> None:
    for key, new_key in (
        ("rope.swa.dimension_count", "rope.dimension_count_swa"),
        ("rope.swa.freq_base", "rope.freq_base_swa"),
    ):
        edits.copy(f"laguna.{key}", f"laguna.{new_key}")
        edits.remove(f"laguna.{key}")
    edits.rename_tensors(".attn_g.weight$", ".attn_gate.weight")


def _nemotron_moe(edits: HeaderEdits) -> None:
    """Translate the trunk alone: the layers that predict further tokens are for speculation only."""
    if not edits.has("nemotron_h_moe.moe_latent_size"):
        latent = next((one for one in edits.header.tensors if one.name.endswith(".ffn_latent_in.weight")), None)
        if latent is not None and len(latent.shape) == 2:
            edits.set_int("nemotron_h_moe.moe_latent_size", latent.shape[1])
    edits.rename_tensors(".ffn_latent_in.", ".ffn_latent_down.")
    edits.rename_tensors(".ffn_latent_out.", ".ffn_latent_up.")
    edits.hide_tensors("mtp.")


def _nemotron_omni(edits: HeaderEdits) -> None:
    counts = (edits.header.get_int(f"nemotron_h_omni.{key}") for key in ("expert_count", "expert_used_count"))
    edits.set_architecture("nemotron_h_moe" if any(counts) else "nemotron_h")
    edits.hide_tensors("a.", "v.", "mm.")
    _nemotron_moe(edits)


def _gpt_oss(edits: HeaderEdits) -> None:
    edits.set_architecture("gpt-oss")
    experts = edits.shape("blk.0.ffn_gate_exps.weight")
    if experts is not None and len(experts) == 3 and not edits.has("gpt-oss.expert_feed_forward_length"):
        edits.set_int("gpt-oss.expert_feed_forward_length", experts[1])
    if not edits.has("gpt-oss.rope.scaling.type"):
        edits.set_text("gpt-oss.rope.scaling.type", "yarn")
    edits.set_text("tokenizer.ggml.pre", "gpt-4o")
    edits.rename_tensors(".attn_out.", ".attn_output.")
    edits.rename_tensors(".attn_sinks$", ".attn_sinks.weight")
    edits.rename_tensors(".ffn_norm.", ".post_attention_norm.")


def _lfm2(edits: HeaderEdits) -> None:
    edits.rename_tensor("output_norm.weight", "token_embd_norm.weight")
    edits.set_text("tokenizer.ggml.pre", "lfm2")
    gate = edits.shape("blk.0.ffn_gate.weight")
    if gate is not None and len(gate) == 2:  # the key of some files is not the size of the tensors
        edits.set_int("lfm2.feed_forward_length", gate[1])


def _llama4(edits: HeaderEdits) -> None:
    edits.hide_tensors("v.", "mm.")


def _mistral3(edits: HeaderEdits) -> None:
    for key, new_key in (
        ("rope.scaling.beta_fast", "rope.scaling.yarn_beta_fast"),
        ("rope.scaling.beta_slow", "rope.scaling.yarn_beta_slow"),
        ("rope.scaling.mscale_all_dim", "rope.scaling.yarn_log_multiplier"),
        ("rope.scaling_beta", "attention.temperature_scale"),
    ):
        edits.copy(f"mistral3.{key}", f"mistral3.{new_key}")
        edits.remove(f"mistral3.{key}")
    if edits.header.get_str("tokenizer.ggml.pre") in ("", "default"):
        edits.set_text("tokenizer.ggml.pre", "tekken")
    edits.hide_tensors("v.", "mm.")


def _olmo3(edits: HeaderEdits) -> None:
    edits.set_architecture("olmo2")


def _qwen25vl(edits: HeaderEdits) -> None:
    edits.set_architecture("qwen2vl")
    _set_four_sections(edits, "qwen2vl.rope.mrope_section")
    edits.hide_tensors("v.", "mm.")


def _qwen35(edits: HeaderEdits) -> None:
    """Translate the trunk alone: the layers that predict further tokens are for speculation only."""
    architecture = edits.header.get_str("general.architecture")
    _set_one_head_count(edits)
    _set_four_sections(edits, f"{architecture}.rope.dimension_sections")
    for key in ("ssm.v_head_reordered", "rope.mrope_interleaved"):
        edits.remove(f"{architecture}.{key}")
    edits.rename_tensors(".ssm_dt$", ".ssm_dt.bias")
    edits.hide_tensors("v.", "mm.", "mtp.")


def _qwen3_next(edits: HeaderEdits) -> None:
    _set_one_head_count(edits)
    edits.rename_tensors(".ssm_dt$", ".ssm_dt.bias")


def _set_one_head_count(edits: HeaderEdits) -> None:
    """Replace the head counts of all layers, which are zero for recurrent ones, by one number."""
    key = f"{edits.header.get_str('general.architecture')}.attention.head_count_kv"
    counts = edits.header.values.get(key)
    if isinstance(counts, GGUFArray) and counts.items is not None:
        edits.set_int(key, max((count for count in counts.items if isinstance(count, int)), default=0))


def _qwen3vl(edits: HeaderEdits) -> None:
    architecture = edits.header.get_str("general.architecture")
    if not edits.has(f"{architecture}.rope.dimension_sections"):
        edits.set_ints(f"{architecture}.rope.dimension_sections", (24, 20, 20, 0))  # of all sizes
    if not edits.has(f"{architecture}.n_deepstack_layers"):
        layers = edits.header.array_length(f"{architecture}.vision.deepstack_visual_indexes")
        edits.set_int(f"{architecture}.n_deepstack_layers", layers)
    edits.hide_tensors("v.", "mm.")


def _set_four_sections(edits: HeaderEdits, key: str) -> None:
    """Set the four sections of positions that llama.cpp expects from the three of a key."""
    sections = edits.header.values.get(key)
    if isinstance(sections, GGUFArray) and sections.items is not None and len(sections.items) == 3:
        first = tuple(item for item in sections.items if isinstance(item, int))
        architecture = edits.header.get_str("general.architecture")
        edits.set_ints(f"{architecture}.rope.dimension_sections", (*first, 0))


def _set_missing(edits: HeaderEdits, key: str, value: float) -> None:
    if not edits.has(key):
        edits.set_float(key, value)


def _truncate_vocabulary(edits: HeaderEdits, embeddings: tuple[int, ...] | None) -> None:
    """Drop the tokens without a row in the embeddings, which belong to the vision tower."""
    if embeddings is not None and len(embeddings) == 2:
        for key in ("tokens", "scores", "token_type"):
            edits.truncate(f"tokenizer.ggml.{key}", embeddings[1])


_TRANSLATIONS: Final[Mapping[str, Callable[[HeaderEdits], None]]] = {
    "bert": _bert,
    "gemma3": _gemma3,
    "gemma3n": _gemma3n,
    "deepseekocr": _deepseek_ocr,
    "gemma4": _gemma4,
    "glmocr": _glm_ocr,
    "laguna": _laguna,
    "nemotron_h_moe": _nemotron_moe,
    "nemotron_h_omni": _nemotron_omni,
    "glm4moelite": _glm4_moe_lite,
    "gptoss": _gpt_oss,
    "lfm2": _lfm2,
    "llama4": _llama4,
    "mistral3": _mistral3,
    "olmo3": _olmo3,
    "qwen25vl": _qwen25vl,
    "qwen35": _qwen35,
    "qwen35moe": _qwen35,
    "qwen3next": _qwen3_next,
    "qwen3vl": _qwen3vl,
    "qwen3vlmoe": _qwen3vl,
}
