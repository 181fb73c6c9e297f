"""Weights that only Ollama can load, detected by their header before they are downloaded or loaded.

Ollama converted some models itself, with other names of architectures, keys and tensors than llama.cpp, or with the
vision tower in the same file. It translates these files when it loads them; plain llama.cpp refuses them, or loads them
with wrong positions or tokens. The markers are those of Ollama's ``llama/compat/README.md`` and
``llama-ollama-compat.cpp``, except:

- Differences that llama.cpp loads correctly are not reported, such as the ids of end tokens of Llama 3: llama.cpp finds
  ``<|eot_id|>`` by its text.
- Keys that Ollama takes as a hint and that do not matter to llama.cpp are no marker by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from corral_core.weights.gguf import STRING, GGUFArray, GGUFHeader

_VISION: Final = ("v.", "mm.")
"""Prefixes of the tensors of a vision tower and its projector."""


@dataclass(frozen=True, slots=True)
class _Format:
    """How Ollama's files of one architecture differ; each of the markers is enough.

    - ``why``: the difference, for the error.
    - ``repository``: one on Hugging Face with files for llama.cpp, empty if none is known.
    - ``unknown``: llama.cpp does not have the architecture.
    - ``keys``, ``missing``: keys after the architecture's prefix that llama.cpp's converter never writes, or always.
    - ``prefixes``, ``suffixes``: of names of tensors.
    - ``check``: any other marker.
    """

    why: str
    repository: str = ""
    unknown: bool = False
    keys: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    check: Callable[[GGUFHeader], bool] = lambda _header: False

    def matches(self, header: GGUFHeader, architecture: str) -> bool:
        return (
            self.unknown
            or any(f"{architecture}.{key}" in header.values for key in self.keys)
            or any(f"{architecture}.{key}" not in header.values for key in self.missing)
            or any(
                tensor.name.startswith(self.prefixes) or tensor.name.endswith(self.suffixes)
                for tensor in header.tensors
            )
            or self.check(header)
        )


def _rows(header: GGUFHeader, name: str) -> int:
    """Return the rows of a tensor, 0 if there is none."""
    return next((tensor.shape[1] for tensor in header.tensors if tensor.name == name and len(tensor.shape) == 2), 0)


def _has_tensor(header: GGUFHeader, name: str) -> bool:
    return any(tensor.name == name for tensor in header.tensors)


def _vocabularies_differ(header: GGUFHeader) -> bool:
    rows, per_layer = _rows(header, "token_embd.weight"), _rows(header, "per_layer_token_embd.weight")
    return bool(rows and per_layer and rows != per_layer)


def _has_other_output_norm(header: GGUFHeader) -> bool:
    return _has_tensor(header, "output_norm.weight") and not _has_tensor(header, "token_embd_norm.weight")


def _has_text_charsmap(header: GGUFHeader) -> bool:
    charsmap = header.values.get("tokenizer.ggml.precompiled_charsmap")
    return isinstance(charsmap, GGUFArray) and charsmap.kind == STRING


def _has_sentencepiece_tokenizer(header: GGUFHeader) -> bool:
    return header.get_str("tokenizer.ggml.model") == "llama"


_NAME: Final = "the architecture has another name in llama.cpp"
_TOWER: Final = "the vision tower is in the same file"
_QWEN35: Final = _Format(
    "tensors have other names, and a vision tower or prediction layers are in the same file",
    "unsloth/Qwen3.5-9B-GGUF",
    keys=("ssm.v_head_reordered", "rope.mrope_interleaved"),
    prefixes=(*_VISION, "mtp."),
    suffixes=(".ssm_dt",),
)
_QWEN3VL: Final = _Format(
    "it lacks the sections of positions, and the vision tower is in the same file",
    "Qwen/Qwen3-VL-8B-Instruct-GGUF",
    missing=("rope.dimension_sections",),
    prefixes=_VISION,
)

_FORMATS: Final[Mapping[str, tuple[_Format, ...]]] = {
    "bert": (
        _Format(
            "the map of characters of its tokenizer is text",
            "Casual-Autopsy/snowflake-arctic-embed-l-v2.0-gguf",
            check=_has_text_charsmap,
        ),
    ),
    "deepseekocr": (_Format(_NAME, "ggml-org/DeepSeek-OCR-GGUF", unknown=True),),
    "gemma3": (
        _Format(
            "the architecture of its embedding model has another name in llama.cpp",
            "ggml-org/embeddinggemma-300M-GGUF",
            prefixes=("dense.",),
        ),
        _Format(
            "keys have other names or are missing, and the vision tower may be in the same file",
            "ggml-org/gemma-3-4b-it-GGUF",
            keys=("rope.global.freq_base", "rope.local.freq_base"),
            missing=("attention.layer_norm_rms_epsilon",),
            prefixes=_VISION,
        ),
    ),
    "gemma3n": (
        _Format(
            "its vocabulary is larger than that of its layers",
            "ggml-org/gemma-3n-E2B-it-GGUF",
            prefixes=(*_VISION, "a."),
            check=_vocabularies_differ,
        ),
    ),
    "gemma4": (
        _Format(
            "its tokenizer has another name, and the vision tower may be in the same file",
            "ggml-org/gemma-4-E4B-it-GGUF",
            prefixes=(*_VISION, "a.", "model.vision_tower."),
            check=_has_sentencepiece_tokenizer,
        ),
    ),
    "glm4moelite": (_Format(_NAME, "unsloth/GLM-4.7-Flash-GGUF", unknown=True),),
    "glmocr": (_Format(_NAME, "ggml-org/GLM-OCR-GGUF", unknown=True),),
    "gptoss": (_Format(_NAME, "ggml-org/gpt-oss-20b-GGUF", unknown=True),),
    "laguna": (
        _Format(
            "keys and tensors have other names",
            keys=("rope.swa.dimension_count", "rope.swa.freq_base"),
            suffixes=(".attn_g.weight",),
        ),
    ),
    "lfm2": (_Format("a tensor has another name", "LiquidAI/LFM2-1.2B-GGUF", check=_has_other_output_norm),),
    "llama4": (_Format(_TOWER, "ggml-org/Llama-4-Scout-17B-16E-Instruct-GGUF", prefixes=_VISION),),
    "mistral3": (
        _Format(
            "keys of the positions have other names, and the vision tower may be in the same file",
            "ggml-org/Mistral-Small-3.1-24B-Instruct-2503-GGUF",
            keys=("rope.scaling.beta_fast", "rope.scaling.mscale_all_dim", "rope.scaling_beta"),
            prefixes=_VISION,
        ),
    ),
    "mllama": (_Format("llama.cpp does not have the architecture", unknown=True),),
    "nemotron_h_moe": (
        _Format(
            "tensors have other names, or prediction layers are in the same file",
            prefixes=("mtp.",),
            suffixes=(".ffn_latent_in.weight", ".ffn_latent_out.weight"),
        ),
    ),
    "nemotron_h_omni": (_Format(_NAME, unknown=True),),
    "olmo3": (_Format(_NAME, "unsloth/Olmo-3-7B-Instruct-GGUF", unknown=True),),
    "qwen25vl": (_Format(_NAME, "ggml-org/Qwen2.5-VL-7B-Instruct-GGUF", unknown=True),),
    "qwen35": (_QWEN35,),
    "qwen35moe": (_QWEN35,),
    "qwen3next": (
        _Format("tensors have other names", "unsloth/Qwen3-Next-80B-A3B-Instruct-GGUF", suffixes=(".ssm_dt",)),
    ),
    "qwen3vl": (_QWEN3VL,),
    "qwen3vlmoe": (_QWEN3VL,),
}
_OTHER: Final = (_Format(_TOWER, prefixes=_VISION),)
_PROJECTOR: Final = "clip"
"""Architecture of a file with a vision tower alone, which both programs have."""


def ollama_only(header: GGUFHeader) -> str | None:
    """Return why only Ollama can load the weights and what to use instead, None if llama.cpp can load them."""
    architecture = header.get_str("general.architecture")
    if architecture == _PROJECTOR:
        return None
    for known in _FORMATS.get(architecture, _OTHER):
        if known.matches(header, architecture):
            return _text(architecture, known)
    return None


def _text(architecture: str, known: _Format) -> str:
    example = f", such as hf://{known.repository} or one of another size" if known.repository else ""
    return (
        f"the file ({architecture[:100]}) has a format that only Ollama can load, not llama.cpp: {known.why}. "
        f"Use a GGUF file for llama.cpp{example}"
    )
