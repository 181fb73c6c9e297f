"""Metadata of SmolLM2-135M-Instruct for tests without weights."""

from __future__ import annotations

from corral_core.contracts.model_metadata import ModelMetadata

SMOLLM2_METADATA = ModelMetadata(
    size=98_362_432,
    family="llama",
    families=("llama",),
    parameter_size="135M",
    parameter_count=134_515_008,
    quantization_level="Q4_1",
    context_length=8192,
    embedding_length=576,
    capabilities=("completion",),
    template="",
    info={"general.architecture": "llama", "tokenizer.ggml.tokens": None},
)
