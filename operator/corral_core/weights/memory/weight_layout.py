"""Bytes of the weights by layer, from the GGUF header: what llama.cpp can put on a device of its own.

Which tensors belong to the input, to a layer and to the output follows ``LLM_TENSOR_INFOS`` (``src/llama-arch.cpp``).
The input stays in host memory (``load_tensors`` in ``src/llama-model.cpp``). A model without a tensor for the output
uses the token embeddings for it, and then has them twice (``TENSOR_DUPLICATED``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from corral_core.weights.ggml_types import TENSOR_TYPES
from corral_core.weights.gguf import GGUFHeader, TensorInfo

_LAYER = re.compile(r"blk\.(\d{1,4})\.")
_EXPERTS = re.compile(r"blk\.\d+\.ffn_(up|down|gate|gate_up)_(ch|)exps")
"""``LLM_FFN_EXPS_REGEX`` in ``common/common.h``: the tensors that ``--n-cpu-moe`` keeps in host memory."""
_TOKENS = "token_embd.weight"
_INPUT = ("token_embd.weight", "position_embd.", "token_types.", "per_layer_token_embd.")
_FIRST_LAYER = ("token_embd_norm.", "per_layer_model_proj.", "per_layer_proj_norm.")
_EVERY_LAYER = ("rope_freqs.", "rope_factors_long.", "rope_factors_short.")
_ALIGNMENT = 128
"""Bytes; of tensors in a buffer of the CUDA backend (``ggml_backend_cuda_buffer_type_get_alignment``)."""
_ROW_MULTIPLE = 512
"""Elements to which the CUDA backend pads the rows of quantized tensors (``MATRIX_ROW_PADDING``)."""
_BLOCKS = {kind.name: (kind.block_size, kind.type_size) for kind in TENSOR_TYPES.values()}


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Bytes of one layer; ``experts`` is the part that are experts."""

    weights: int = 0
    experts: int = 0


@dataclass(frozen=True, slots=True)
class WeightLayout:
    """Bytes of all weights as they are in device memory; ``largest`` is the largest tensor of a layer."""

    input: int
    output: int
    largest: int
    layers: tuple[LayerWeights, ...]


def weight_layout(header: GGUFHeader, layers: int) -> WeightLayout:
    """Sum the tensors of each of the ``layers``. A tensor that is in none of them counts for the output."""
    found = [LayerWeights()] * layers
    inputs = outputs = largest = 0
    tied = True
    for tensor in header.tensors:
        size, layer = device_size(tensor), _layer(tensor.name)
        tied = tied and tensor.name != "output.weight"
        if tensor.name.startswith(_INPUT):
            inputs += size
        elif layer is not None and layer < layers:
            largest = max(largest, size)
            experts = size if _EXPERTS.match(tensor.name) else 0
            found[layer] = LayerWeights(found[layer].weights + size, found[layer].experts + experts)
        elif tensor.name.startswith(_EVERY_LAYER):
            found = [replace(each, weights=each.weights + size) for each in found]
        else:
            outputs += size
    encodes = f"{header.get_str('general.architecture')}.pooling_type" in header.values
    if tied and not encodes:
        outputs += sum(device_size(tensor) for tensor in header.tensors if tensor.name == _TOKENS)
    return WeightLayout(inputs, outputs, largest, tuple(found))


def device_size(tensor: TensorInfo) -> int:
    """Return the bytes of a tensor in a GPU's memory, with the padding of the CUDA backend, the largest of all.

    Source: ``ggml_backend_cuda_buffer_type_get_alloc_size``.
    """
    block, size = _BLOCKS[tensor.type]
    row = tensor.shape[0] if tensor.shape else 0
    padding = -row % _ROW_MULTIPLE // block * size if block > 1 else 0
    return -(-(tensor.size + padding) // _ALIGNMENT) * _ALIGNMENT


def _layer(name: str) -> int | None:
    """Return the number of the layer that the tensor belongs to."""
    if name.startswith(_FIRST_LAYER):
        return 0
    found = _LAYER.match(name)
    return int(found[1]) if found else None
