"""Small synthetic LoRA adapter for SmolLM2-135M-Instruct, strong enough to change the generated text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.support.gguf_files import FakeTensor, TypedValue, Value, gguf_bytes

WIDTH, LAYERS = 576, 30
_F32 = 6


def write_lora(
    path: Path, *, seed: int, rank: int = 4, strength: float = 2.0, width: int = WIDTH, layers: int = LAYERS
) -> Path:
    """Write an adapter of the query and output projections in each layer's attention, with random values by ``seed``.

    ``width`` and ``layers`` must equal those of the model; by default they are those of SmolLM2.
    """
    random = np.random.default_rng(seed)
    tensors = []
    for layer in range(layers):
        for part in ("attn_q", "attn_output"):
            down = random.standard_normal((rank, width)).astype(np.float32) / np.sqrt(width)
            up = strength * random.standard_normal((width, rank)).astype(np.float32) / np.sqrt(rank)
            name = f"blk.{layer}.{part}.weight"
            tensors.append(FakeTensor(f"{name}.lora_a", (width, rank), 0, down.astype(np.float32).tobytes()))
            tensors.append(FakeTensor(f"{name}.lora_b", (rank, width), 0, up.astype(np.float32).tobytes()))
    values: dict[str, Value] = {
        "general.type": "adapter",
        "general.architecture": "llama",
        "adapter.type": "lora",
        "adapter.lora.alpha": TypedValue(_F32, float(rank)),
    }
    path.write_bytes(gguf_bytes(values, tensors))
    return path
