"""Context: KV cache, batch and decoding of one loaded model in llama.cpp."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from corral_core.weights.ggml_types import TENSOR_TYPES
from corral_core.weights.load_config import LoadConfig
from corral_server.runner.llama import log
from corral_server.runner.llama.errors import EngineFailed, LoadFailed
from corral_server.runner.llama.library import C
from corral_server.runner.llama.model import LlamaModel, LoraAdapter
from corral_server.runner.llama.projector import Embeddings
from corral_server.runner.llama.sampler import LlamaSampler

NO_ROOM = 1
"""Status of ``llama_decode``: the cache has no room for the batch, and nothing changed."""
_CACHE_TYPES = {kind.name.lower(): number for number, kind in TENSOR_TYPES.items()}
"""Values of ggml's ``enum ggml_type``."""
POOLING_RANK = 4
"""llama.cpp's pooling type of models that score a text instead of embedding it (``LLAMA_POOLING_TYPE_RANK``)."""


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """``length`` tokens for each of ``sequences``, at most ``batch_size`` tokens in one decode.

    ``outputs_per_sequence`` tokens of each sequence in a batch may be sampled from. ``cache_type`` is one of
    ``KV_CACHE_TYPES``. With ``flash_attention`` None llama.cpp chooses.
    ``unified``: all sequences share one buffer of cells. With ``pooling`` (``enum llama_pooling_type``, -1 the model's
    own) the context computes embeddings, and all sequences share ``length``.
    """

    length: int
    sequences: int
    batch_size: int = 512
    threads: int = 1
    unified: bool = False
    flash_attention: bool | None = None
    cache_type: str = "f16"
    outputs_per_sequence: int = 1
    pooling: int | None = None


class LlamaContext:
    """KV cache and compute buffers. Only one thread at a time may call it."""

    def __init__(self, model: LlamaModel, options: ContextOptions) -> None:
        """Allocate the memory. Raises LoadFailed when it is short."""
        with log.capture() as lines:
            self._context = C.llama_init_from_model(model.handle, context_params(options))
        if not self._context:
            size = f"{options.length} x {options.sequences}"
            raise LoadFailed(f"no context of {size} tokens: {log.failure_reason(lines)}")
        self.buffer_sizes = log.buffer_sizes(lines)
        self._memory = C.llama_get_memory(self._context)
        self.vocab_size = model.vocab_size
        self.pooling: int = C.llama_pooling_type(self._context)
        embedding_size = C.llama_model_n_cls_out if self.pooling == POOLING_RANK else C.llama_model_n_embd_out
        self._embedding_size: int = embedding_size(model.handle)
        self.can_shift: bool = C.llama_memory_can_shift(self._memory)
        self._batch = C.llama_batch_init(options.batch_size, 0, 1)
        self.batch_capacity = options.batch_size
        self._size = 0

    def clear_batch(self) -> None:
        self._size = 0

    def add_tokens(self, sequence: int, position: int, tokens: Sequence[int], *, outputs: int) -> int:
        """Append tokens to the batch and return the index of the last; the last ``outputs`` keep their logits."""
        batch, start = self._batch, self._size
        self._size = end = start + len(tokens)
        if end > self.batch_capacity:
            raise ValueError("the batch is full")
        for index, token in enumerate(tokens, start):
            batch.token[index] = token
            batch.pos[index] = position + index - start
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = index >= end - outputs
        return end - 1

    def set_adapter(self, adapter: LoraAdapter | None) -> None:
        """Apply the adapter to all following batches; None for the model alone. Raises EngineFailed."""
        adapters = [adapter] if adapter is not None else []
        handles = (C.llama_adapter_lora_p_ctypes * len(adapters))(*(one.handle for one in adapters))
        scales = (ctypes.c_float * len(adapters))(*(one.scale for one in adapters))
        if C.llama_set_adapters_lora(self._context, handles, len(adapters), scales):
            raise EngineFailed("llama.cpp does not accept the adapter")

    def decode(self) -> int:
        """Decode the batch and return the status of ``llama_decode``: 0 done, ``NO_ROOM``, others failed."""
        self._batch.n_tokens = self._size
        return int(C.llama_decode(self._context, self._batch))

    def decode_embeddings(
        self,
        sequence: int,
        positions: Sequence[Sequence[int]],
        embeddings: Embeddings,
        *,
        first: int,
        size: int,
        causal: bool,
    ) -> int:
        """Decode rows of embeddings, each of ``size`` numbers, from row ``first`` on; return the status as ``decode``.

        ``positions`` has one section, or the four of M-RoPE, with a number for each row. Without ``causal`` the rows
        attend to each other in both directions; then their number is within the batch, or llama.cpp aborts. The batch
        of ``add_tokens`` is untouched.
        """
        count = len(positions[0])
        if count > self.batch_capacity:
            raise ValueError("the rows do not fit a batch")
        sequences = (ctypes.POINTER(C.llama_seq_id) * count)(*(ctypes.pointer(C.llama_seq_id(sequence)),) * count)
        batch = C.llama_batch(
            n_tokens=count,
            embd=ctypes.cast(ctypes.byref(embeddings, first * size * 4), ctypes.POINTER(ctypes.c_float)),
            pos=(C.llama_pos * (count * len(positions)))(*chain.from_iterable(positions)),
            n_seq_id=(ctypes.c_int32 * count)(*(1,) * count),
            seq_id=sequences,
            logits=(ctypes.c_int8 * count)(),
        )
        C.llama_set_causal_attn(self._context, causal)
        try:
            return int(C.llama_decode(self._context, batch))
        finally:
            C.llama_set_causal_attn(self._context, True)

    def warm_up(self, token: int) -> bool:
        """Decode one token, through all experts too, and clear the memory; False when that failed."""
        C.llama_set_warmup(self._context, True)
        self.clear_batch()
        self.add_tokens(0, 0, [token], outputs=1)
        status = self.decode()
        C.llama_set_warmup(self._context, False)
        self.clear()
        return status == 0

    def remove_cells(self, sequence: int, start: int = 0, end: int = -1) -> bool:
        """Remove positions [start, end) of a sequence; False when this memory cannot remove a part."""
        return bool(C.llama_memory_seq_rm(self._memory, sequence, start, end))

    def shift_cells(self, sequence: int, start: int, end: int, *, by: int) -> None:
        """Add ``by`` to the positions [start, end) of a sequence."""
        C.llama_memory_seq_add(self._memory, sequence, start, end, by)

    def copy_cells(self, source: int, target: int, end: int) -> bool:
        """Replace the cells of ``target`` by the source's positions [0, end).

        The data of all of the source's cells is copied at the next decode. False when this memory cannot remove the
        positions from ``end`` on: then the target is empty. Not for unified memory, where both sequences would share
        cells, and a shift of one would move the other's.
        """
        self.remove_cells(target)
        C.llama_memory_seq_cp(self._memory, source, target, -1, -1)  # llama.cpp aborts for a part of a sequence
        if self.remove_cells(target, end):
            return True
        self.remove_cells(target)
        return False

    def count_cells(self, sequence: int) -> int:
        """Return the number of positions that the memory holds for a sequence."""
        last = int(C.llama_memory_seq_pos_max(self._memory, sequence))
        return last - int(C.llama_memory_seq_pos_min(self._memory, sequence)) + 1 if last >= 0 else 0

    def clear(self) -> None:
        C.llama_memory_clear(self._memory, False)

    def sample(self, sampler: LlamaSampler, index: int) -> int:
        """Sample from the logits of batch entry ``index`` and update the sampler with the token."""
        return int(C.llama_sampler_sample(sampler.handle, self._context, index))

    def logits(self, index: int) -> memoryview:
        """Return the float32 logits of batch entry ``index`` as int32 bits; valid until the next decode."""
        address = ctypes.addressof(C.llama_get_logits_ith(self._context, index).contents)
        return memoryview((ctypes.c_float * self.vocab_size).from_address(address)).cast("B").cast("i")

    def sequence_embedding(self, sequence: int) -> array[float]:
        """Return the pooled embedding of a sequence that ended in the last batch, as float32. Raises EngineFailed."""
        found = C.llama_get_embeddings_seq(self._context, sequence)
        if not found:
            raise EngineFailed("llama.cpp has no embedding for an input")
        return array("f", found[: self._embedding_size])

    def close(self) -> None:
        if self._context:
            C.llama_batch_free(self._batch)
            C.llama_free(self._context)
            self._context = None


def generation_options(config: LoadConfig) -> ContextOptions:
    """Return the options of the context for generations by a load config, with one thread."""
    return ContextOptions(
        length=config.context_length,
        sequences=config.parallel,
        batch_size=config.batch_size,
        flash_attention=config.flash_attention,
        cache_type=config.kv_cache_type,
        outputs_per_sequence=config.outputs_per_sequence,
    )


def context_params(options: ContextOptions) -> object:
    """Convert to a ``llama_context_params``."""
    params = C.llama_context_default_params()
    params.n_ctx = options.length * options.sequences
    params.n_batch = params.n_ubatch = options.batch_size
    params.n_seq_max = options.sequences
    outputs = min(options.batch_size, options.sequences * options.outputs_per_sequence)
    params.n_outputs_max = max(options.sequences, outputs)
    params.n_threads = params.n_threads_batch = options.threads
    params.kv_unified = options.unified
    params.flash_attn_type = -1 if options.flash_attention is None else int(options.flash_attention)
    params.type_k = params.type_v = _CACHE_TYPES[options.cache_type]
    params.no_perf = True
    if options.pooling is not None:
        params.n_ctx, params.n_outputs_max = options.length, options.batch_size
        params.embeddings, params.pooling_type = True, options.pooling
    return params
