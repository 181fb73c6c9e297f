"""A small synthetic LoRA adapter for SmolLM2-135M-Instruct, strong enough to change what the model says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.support.gguf_files import FakeTensor, Typed, Value, gguf_bytes

WIDTH, LAYERS = 576, 30
_F32 = 6


def write_lora(
    path: Path, *, seed: int, rank: int = 4, strength: float = 2.0, width: int = WIDTH, layers: int = LAYERS
) -> Path:
    """Changes the query and output projections of each layer's attention; other seeds, other changes.

    With another ``width`` the adapter does not fit the model, but one of that width and of as many ``layers``.
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
        "adapter.lora.alpha": Typed(_F32, float(rank)),
    }
    path.write_bytes(gguf_bytes(values, tensors))
    return path
