"""The adapter to llama.cpp: with its neighbours ``llama_*.py`` all that uses it, and only its low-level API.

Model, context, batch and samplers become small typed classes; ctypes, pointers and llama.cpp's log stay in here.
What always holds: every handle has one owner and ``close`` frees it once; nothing in here is called with values that
make llama.cpp throw, because a C++ exception would end the process.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from corral_server.runner import llama_log
from corral_server.runner.generation import EngineFailed, InvalidGrammar, LoadFailed
from corral_server.runner.llama_library import C, initialize
from corral_server.runner.llama_sampler import Sampler
from corral_server.runner.mapped import forget_pages

_RANK = 4
"""The pooling type of models that score a text in place of embedding it."""


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """``length`` tokens for each of ``sequences``; ``batch`` tokens at most in one decode; cache types are ggml's.

    Of each sequence ``outputs`` tokens of a batch may be sampled from.
    With ``pooling`` (llama.cpp's number, -1 the model's own) it makes embeddings, and all sequences share ``length``.
    """

    length: int
    sequences: int
    batch: int = 512
    threads: int = 1
    unified: bool = False
    flash_attention: int = -1
    cache_type: int = 1
    outputs: int = 1
    pooling: int | None = None


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter of a loaded model, which frees it; ``scale`` is how much of it is applied."""

    handle: object
    scale: float


class LlamaModel:
    """Weights and vocabulary of one GGUF. Tokenizing is safe from any thread.

    A sequence of a model that ``rewinds`` can forget its newest tokens; a recurrent one has one state for all of them.
    """

    def __init__(
        self,
        path: Path,
        *,
        gpu_layers: int = -1,
        lock: bool = False,
        progress: Callable[[float], bool] | None = None,
    ) -> None:
        """Loads the file; ``progress`` gets 0 to 1 and aborts the loading by returning False. Raises LoadFailed.

        With ``lock`` its memory is never swapped out, unless the system forbids that, which is logged.
        """
        initialize()
        params = C.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        if lock:
            params.load_mode = C.LLAMA_LOAD_MODE_MMAP_MLOCK
        if progress is not None:
            params.progress_callback = C.llama_progress_callback(lambda share, _data: bool(progress(share)))
        with llama_log.captured() as lines:
            self._model = C.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise LoadFailed(f"{path} cannot be loaded: {llama_log.reason(lines)}")
        self.buffers = llama_log.buffer_sizes(lines)
        if self.buffers.keys() - {"CPU_Mapped"}:
            forget_pages(path)
        self._vocab = C.llama_model_get_vocab(self._model)
        self.vocab_size: int = C.llama_vocab_n_tokens(self._vocab)
        self.train_context: int = C.llama_model_n_ctx_train(self._model)
        self.weights_bytes: int = C.llama_model_size(self._model)
        self.bos: int = C.llama_vocab_bos(self._vocab)
        self.eos: int = C.llama_vocab_eos(self._vocab)
        self.adds_bos: bool = C.llama_vocab_get_add_bos(self._vocab)
        self.rewinds: bool = not (C.llama_model_is_recurrent(self._model) or C.llama_model_is_hybrid(self._model))
        self._pieces: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}
        if not C.llama_model_has_decoder(self._model):
            self.close()
            raise LoadFailed(f"{path} cannot be loaded: the model has no decoder, so it cannot generate text")

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        self._must_be_open()
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        while True:
            tokens = (C.llama_token * room)()
            count = C.llama_tokenize(self._vocab, data, len(data), tokens, room, add_special, parse_special)
            if count >= 0:
                return list(tokens[:count])
            if count == -(2**31):
                raise EngineFailed("the text is too long to be tokenized")
            room = -count

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of one token, perhaps half a character; a control token has none unless ``special``."""
        if not special and token in self._pieces:
            return self._pieces[token]
        self._must_be_open()
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = C.llama_token_to_piece(self._vocab, token, buffer, size, 0, special)
            if count >= 0:
                break
            size = -count
        data = buffer.raw[:count]
        if not special:
            self._pieces[token] = data
        return data

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Text of the tokens, special ones included. Raises ValueError for a token that is not in the vocabulary."""
        if not self.knows(tokens):
            raise ValueError("a token is not in the model's vocabulary")
        return b"".join(self.piece(token, special=True) for token in tokens).decode("utf-8", "replace")

    def knows(self, tokens: Iterable[int]) -> bool:
        return all(0 <= token < self.vocab_size for token in tokens)

    def ends(self, token: int) -> bool:
        """Whether the token ends a generation (end of text, of turn, of message)."""
        if token not in self._ends:
            self._ends[token] = bool(C.llama_vocab_is_eog(self._vocab, token))
        return self._ends[token]

    def text_of(self, token: int) -> str:
        """A special token as templates write it (``<|im_end|>``); empty when the model has none."""
        self._must_be_open()
        return C.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace") if token >= 0 else ""

    def chat_template(self) -> str | None:
        self._must_be_open()
        template = C.llama_model_chat_template(self._model, None)
        return template.decode("utf-8", "replace") if template is not None else None

    def context(self, options: ContextOptions) -> LlamaContext:
        """Raises LoadFailed when memory is short."""
        return LlamaContext(self, self._model, options)

    def adapter(self, path: Path, scale: float) -> Adapter:
        """Reads a LoRA adapter; only before the first context is made. Raises LoadFailed, which names the file."""
        with llama_log.captured() as lines:
            self._must_be_open()
            handle = C.llama_adapter_lora_init(self._model, str(path).encode())
        if not handle:
            raise LoadFailed(f"the adapter {path} cannot be loaded: {llama_log.reason(lines)}")
        if C.llama_adapter_get_alora_n_invocation_tokens(handle):
            raise LoadFailed(f"the adapter {path} is one that its own tokens switch on, which is not supported")
        for kind, size in llama_log.buffer_sizes(lines).items():
            self.buffers[kind] = self.buffers.get(kind, 0) + size
        return Adapter(handle, scale)

    def grammar(self, text: str) -> Sampler:
        """Raises InvalidGrammar when the GBNF text does not parse or has no root."""
        if not text.strip() or "\0" in text:
            raise InvalidGrammar("the grammar is empty or has a NUL character")
        with llama_log.captured() as lines:
            self._must_be_open()
            handle = C.llama_sampler_init_grammar(self._vocab, text.encode("utf-8", "replace"), b"root")
        if not handle:
            raise InvalidGrammar(f"the grammar does not compile: {llama_log.reason(lines)}")
        return Sampler(handle)

    def _must_be_open(self) -> None:
        if not self._model:
            raise EngineFailed("the model is unloaded")

    def close(self) -> None:
        """Frees the weights, after a grammar that is being compiled; nothing else may be running."""
        with llama_log.lock:
            if self._model:
                C.llama_model_free(self._model)
                self._model = None


class LlamaContext:
    """KV cache and compute buffers. Only one thread at a time may call it."""

    def __init__(self, model: LlamaModel, handle: object, options: ContextOptions) -> None:
        params = C.llama_context_default_params()
        params.n_ctx = options.length * options.sequences
        params.n_batch = params.n_ubatch = options.batch
        params.n_seq_max = options.sequences
        params.n_outputs_max = max(options.sequences, min(options.batch, options.sequences * options.outputs))
        params.n_threads = params.n_threads_batch = options.threads
        params.kv_unified = options.unified
        params.flash_attn_type = options.flash_attention
        params.type_k = params.type_v = options.cache_type
        params.no_perf = True
        if options.pooling is not None:
            params.n_ctx, params.n_outputs_max = options.length, options.batch
            params.embeddings, params.pooling_type = True, options.pooling
        with llama_log.captured() as lines:
            self._context = C.llama_init_from_model(handle, params)
        if not self._context:
            raise LoadFailed(f"no context of {options.length} x {options.sequences} tokens: {llama_log.reason(lines)}")
        self.buffers = llama_log.buffer_sizes(lines)
        self._memory = C.llama_get_memory(self._context)
        self.vocab_size = model.vocab_size
        self.pooling: int = C.llama_pooling_type(self._context)
        self._width: int = (C.llama_model_n_cls_out if self.pooling == _RANK else C.llama_model_n_embd_out)(handle)
        self.can_shift: bool = C.llama_memory_can_shift(self._memory)
        self._batch = C.llama_batch_init(options.batch, 0, 1)
        self.capacity = options.batch
        self._size = 0

    def clear_batch(self) -> None:
        self._size = 0

    def add(self, sequence: int, position: int, tokens: Sequence[int], *, outputs: int) -> int:
        """Appends tokens to the batch; returns the index of the last; the logits of the last ``outputs`` are kept."""
        batch, start = self._batch, self._size
        self._size = end = start + len(tokens)
        if end > self.capacity:
            raise ValueError("the batch is full")
        for index, token in enumerate(tokens, start):
            batch.token[index] = token
            batch.pos[index] = position + index - start
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = index >= end - outputs
        return end - 1

    def use(self, adapter: Adapter | None) -> None:
        """The adapter of the batches from now on; None for the model as it is. Raises EngineFailed."""
        used = [adapter] if adapter is not None else []
        handles = (C.llama_adapter_lora_p_ctypes * len(used))(*(one.handle for one in used))
        scales = (ctypes.c_float * len(used))(*(one.scale for one in used))
        if C.llama_set_adapters_lora(self._context, handles, len(used), scales):
            raise EngineFailed("llama.cpp does not take the adapter")

    def decode(self) -> int:
        """Runs the batch: 0 done, 1 no room in the cache (nothing changed), others failed."""
        self._batch.n_tokens = self._size
        return int(C.llama_decode(self._context, self._batch))

    def warm_up(self, token: int) -> bool:
        """Decodes once, through all experts too, and forgets it; False when that failed."""
        C.llama_set_warmup(self._context, True)
        self.clear_batch()
        self.add(0, 0, [token], outputs=1)
        status = self.decode()
        C.llama_set_warmup(self._context, False)
        self.clear()
        return status == 0

    def remove(self, sequence: int, start: int = 0, end: int = -1) -> bool:
        """Forgets positions [start, end) of a sequence; False when this memory cannot forget a part."""
        return bool(C.llama_memory_seq_rm(self._memory, sequence, start, end))

    def move(self, sequence: int, start: int, end: int, by: int) -> None:
        C.llama_memory_seq_add(self._memory, sequence, start, end, by)

    def copy(self, source: int, target: int, end: int) -> bool:
        """Gives ``target``, in place of what it has, the source's positions [0, end).

        All of the source's cells are copied at the next decode. False when this memory cannot forget what comes after
        ``end``: then the target is empty. Not for unified memory, where both would share the cells from then on, and
        a shift of one would move the other's.
        """
        self.remove(target)
        C.llama_memory_seq_cp(self._memory, source, target, -1, -1)  # it aborts for a part
        if self.remove(target, end):
            return True
        self.remove(target)
        return False

    def cells(self, sequence: int) -> int:
        """How many positions the memory holds for a sequence."""
        last = int(C.llama_memory_seq_pos_max(self._memory, sequence))
        return last - int(C.llama_memory_seq_pos_min(self._memory, sequence)) + 1 if last >= 0 else 0

    def clear(self) -> None:
        C.llama_memory_clear(self._memory, False)

    def sample(self, sampler: Sampler, index: int) -> int:
        """Samples from the logits of batch entry ``index`` and tells the sampler what was chosen."""
        return int(C.llama_sampler_sample(sampler.handle, self._context, index))

    def logits(self, index: int) -> memoryview:
        """The bits of ``vocab_size`` float32 logits as int32, valid until the next decode."""
        address = ctypes.addressof(C.llama_get_logits_ith(self._context, index).contents)
        return memoryview((ctypes.c_float * self.vocab_size).from_address(address)).cast("B").cast("i")

    def pooled(self, sequence: int) -> array[float]:
        """The embedding of a sequence whose end was in the last batch, as 32-bit floats. Raises EngineFailed."""
        found = C.llama_get_embeddings_seq(self._context, sequence)
        if not found:
            raise EngineFailed("llama.cpp has no embedding for an input")
        return array("f", found[: self._width])

    def close(self) -> None:
        if self._context:
            C.llama_batch_free(self._batch)
            C.llama_free(self._context)
            self._context = None
