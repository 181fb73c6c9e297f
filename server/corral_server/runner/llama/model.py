"""Model: weights, vocabulary and LoRA adapters of one GGUF file in llama.cpp.

The package ``llama`` is the adapter to llama.cpp; it uses the low-level API only. ctypes, pointers and the log of
llama.cpp stay inside.

Invariants:

- every handle has one owner, and ``close`` frees it once;
- no value reaches llama.cpp that makes it throw: a C++ exception would end the process.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from corral_core.sources.locate import weight_parts
from corral_server.runner.llama import log
from corral_server.runner.llama.errors import EngineFailed, LoadFailed
from corral_server.runner.llama.library import C, initialize
from corral_server.runner.llama.mapped_pages import release_pages
from corral_server.runner.llama.placement import ON_CPU, Placement
from corral_server.runner.llama.vocabulary import SpecialTokens, Vocabulary
from corral_server.system.page_cache import are_cached


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """A LoRA adapter of a loaded model, freed with the model; ``scale`` is the factor that it is applied with."""

    handle: object
    scale: float


class LlamaModel:
    """Weights and vocabulary of one GGUF file. Tokenizing is safe from any thread.

    With ``can_truncate`` the newest tokens of a sequence can be removed; a recurrent model has one state for all of
    them.
    """

    def __init__(
        self,
        path: Path,
        *,
        placement: Placement = ON_CPU,
        lock_weights: bool = False,
        progress: Callable[[float], bool] | None = None,
    ) -> None:
        """Load the file; ``progress`` gets 0 to 1 and aborts by returning False. Raises LoadFailed.

        With ``lock_weights`` host memory is never swapped out, unless the system forbids that, which is logged.
        """
        initialize()
        params = C.llama_model_default_params()
        self._owned, self.placement = placement.apply(params), placement
        params.load_mode = load_mode(path, on_gpus=bool(placement.devices and placement.layers), lock=lock_weights)
        if progress is not None:
            params.progress_callback = C.llama_progress_callback(lambda share, _data: bool(progress(share)))
        with log.capture() as lines:
            self._model = C.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise LoadFailed(f"{path} cannot be loaded: {log.failure_reason(lines)}")
        self.gpu_layers, layers = log.layer_counts(lines)
        self.layers: int = layers or C.llama_model_n_layer(self._model) + 1
        self.buffer_sizes = log.without_copied_pages(log.buffer_sizes(lines))
        if self.buffer_sizes.keys() - {"CPU_Mapped"}:
            release_pages(path)
        self._read_properties()
        self._vocabulary_lock = threading.Lock()
        self._token_bytes: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}
        if not C.llama_model_has_decoder(self._model):
            self.close()
            raise LoadFailed(f"{path} cannot be loaded: the model has no decoder, so it cannot generate text")

    def _read_properties(self) -> None:
        self._vocab = C.llama_model_get_vocab(self._model)
        self.vocab_size: int = C.llama_vocab_n_tokens(self._vocab)
        self.train_context: int = C.llama_model_n_ctx_train(self._model)
        self.weights_bytes: int = C.llama_model_size(self._model)
        self.bos: int = C.llama_vocab_bos(self._vocab)
        self.eos: int = C.llama_vocab_eos(self._vocab)
        self.adds_bos: bool = C.llama_vocab_get_add_bos(self._vocab)
        self.can_truncate: bool = not (C.llama_model_is_recurrent(self._model) or C.llama_model_is_hybrid(self._model))

    @property
    def handle(self) -> object:
        """The ``llama_model`` pointer. Raises EngineFailed once the model is closed."""
        if not self._model:
            raise EngineFailed("the model is unloaded")
        return self._model

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        self._require_open()
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

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        """Return a token's bytes, perhaps a part of a character; a control token has none unless ``special``."""
        if not special and token in self._token_bytes:
            return self._token_bytes[token]
        self._require_open()
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = C.llama_token_to_piece(self._vocab, token, buffer, size, 0, special)
            if count >= 0:
                break
            size = -count
        data = buffer.raw[:count]
        if not special:
            self._token_bytes[token] = data
        return data

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text, control tokens included. Raises ValueError for a token outside of the vocabulary."""
        if not self.has_tokens(tokens):
            raise ValueError("a token is not in the model's vocabulary")
        return b"".join(self.token_bytes(token, special=True) for token in tokens).decode("utf-8", "replace")

    def has_tokens(self, tokens: Iterable[int]) -> bool:
        """Whether all tokens are in the vocabulary."""
        return all(0 <= token < self.vocab_size for token in tokens)

    def is_end_of_generation(self, token: int) -> bool:
        """Whether the token ends a generation (end of text, of turn, of message): ``llama_vocab_is_eog``."""
        if token not in self._ends:
            self._ends[token] = bool(C.llama_vocab_is_eog(self._vocab, token))
        return self._ends[token]

    def token_text(self, token: int) -> str:
        """Return a special token as templates write it (``<|im_end|>``); empty when the model has none."""
        self._require_open()
        return C.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace") if token >= 0 else ""

    def special_tokens(self) -> SpecialTokens:
        self._require_open()
        vocab = self._vocab
        return SpecialTokens(
            bos=self.bos,
            eos=self.eos,
            sep=C.llama_vocab_sep(vocab),
            adds_bos=self.adds_bos,
            adds_eos=C.llama_vocab_get_add_eos(vocab),
            adds_sep=C.llama_vocab_get_add_sep(vocab),
            fim_prefix=C.llama_vocab_fim_pre(vocab),
            fim_suffix=C.llama_vocab_fim_suf(vocab),
            fim_middle=C.llama_vocab_fim_mid(vocab),
            fim_repository=C.llama_vocab_fim_rep(vocab),
            fim_separator=C.llama_vocab_fim_sep(vocab),
        )

    def chat_template(self, name: str = "") -> str | None:
        """Return the model's template of this name, without a name the one for chats; None if there is none."""
        self._require_open()
        template = C.llama_model_chat_template(self._model, name.encode() if name else None)
        return template.decode("utf-8", "replace") if template is not None else None

    def load_adapter(self, path: Path, scale: float) -> LoraAdapter:
        """Load a LoRA adapter, before the first context is made. Raises LoadFailed, which names the file."""
        with log.capture() as lines:
            self._require_open()
            handle = C.llama_adapter_lora_init(self._model, str(path).encode())
        if not handle:
            raise LoadFailed(f"the adapter {path} cannot be loaded: {log.failure_reason(lines)}")
        if C.llama_adapter_get_alora_n_invocation_tokens(handle):
            raise LoadFailed(f"the adapter {path} is activated by its own tokens (aLoRA), which is not supported")
        for kind, size in log.buffer_sizes(lines).items():
            self.buffer_sizes[kind] = self.buffer_sizes.get(kind, 0) + size
        return LoraAdapter(handle, scale)

    def vocabulary(self) -> Vocabulary:
        """Read all tokens. Measured: 0.1 s for 49,152 tokens."""
        without_text = C.LLAMA_TOKEN_ATTR_CONTROL | C.LLAMA_TOKEN_ATTR_UNKNOWN
        size = 64
        buffer = ctypes.create_string_buffer(size)
        texts, control, ends = [], [], []
        with self._vocabulary_lock:
            self._require_open()
            for token in range(self.vocab_size):
                while (count := C.llama_token_to_piece(self._vocab, token, buffer, size, 0, True)) < 0:
                    size = -count
                    buffer = ctypes.create_string_buffer(size)
                texts.append(buffer.raw[:count])
                if C.llama_vocab_get_attr(self._vocab, token) & without_text:
                    control.append(token)
                if C.llama_vocab_is_eog(self._vocab, token):
                    ends.append(token)
        return Vocabulary(texts, tuple(control), tuple(ends))

    def _require_open(self) -> None:
        if not self._model:
            raise EngineFailed("the model is unloaded")

    def close(self) -> None:
        """Free the weights after a running ``vocabulary``; nothing else may be running."""
        with self._vocabulary_lock:
            if self._model:
                C.llama_model_free(self._model)
                self._model = None


def load_mode(path: Path, *, on_gpus: bool, lock: bool) -> int:
    """Return the ``llama_load_mode``: how the weights get from the file to their devices.

    For the CPU the file is mapped, so a page is read when it is needed. Weights for a GPU are all needed at once:
    reading the file ahead is faster than the page faults of a mapping, unless all of its pages are in memory. AUTO maps
    the file if all devices support that.
    """
    mapped = not on_gpus or are_cached(weight_parts(path))
    if lock:
        return int(C.LLAMA_LOAD_MODE_MMAP_MLOCK if mapped else C.LLAMA_LOAD_MODE_MLOCK)
    return int(C.LLAMA_LOAD_MODE_AUTO if mapped else C.LLAMA_LOAD_MODE_NONE)
