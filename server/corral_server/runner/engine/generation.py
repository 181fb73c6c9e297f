"""Tasks and results of the engine, and the interface that the HTTP APIs use.

The APIs render templates, parse options and encode responses; the engine handles tokens, sequences and samplers.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from corral_core.contracts.runner_status import Offload
from corral_server.runner.engine.metrics import EngineMetrics
from corral_server.runner.engine.prepared_image import PreparedImage
from corral_server.runner.llama.vocabulary import SpecialTokens
from corral_server.runner.sampling.grammar import Grammar
from corral_server.runner.sampling.parameters import DEFAULT_PARAMETERS, SamplingParameters
from corral_server.runner.sampling.text import TextChunk
from corral_server.wire.request_limits import NO_REQUEST_LIMITS, RequestLimits


@dataclass(frozen=True, slots=True)
class GenerationTask:
    """One generation. ``prompt`` are tokens; a ``stop`` string ends the text before it.

    ``context_length`` limits the context of this generation in tokens; 0, or more than a slot has, means the slot's.
    ``max_tokens`` -1 means ten times the context. After ``max_seconds`` in a slot, prefill included, the generation
    ends with reason ``length``; 0 means no limit. A context shift keeps the first ``keep`` tokens; without
    ``context_shift`` a full context ends the generation with reason ``length``. With ``logprobs`` the chunks carry the
    logprobs of each token and of the ``top_logprobs`` most likely ones. ``visible_control_tokens`` are control tokens
    whose text is part of the output: the markers of thinking and tool calls. ``adapter`` is the name of a loaded
    adapter. The cells of ``images`` are in the prompt, which ends with a token; a context with images is not shifted.
    """

    prompt: tuple[int, ...]
    sampling: SamplingParameters = DEFAULT_PARAMETERS
    grammar: Grammar | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int = -1
    max_seconds: float = 0.0
    keep: int = 4
    context_shift: bool = True
    logprobs: bool = False
    top_logprobs: int = 0
    visible_control_tokens: frozenset[int] = frozenset()
    adapter: str = ""
    context_length: int = 0
    images: tuple[PreparedImage, ...] = ()

    def within(self, limits: RequestLimits) -> GenerationTask:
        """Return the task with the lower of its own and the given limits."""
        if limits == NO_REQUEST_LIMITS:
            return self
        own = RequestLimits(max(self.max_tokens, 0), self.max_seconds)
        lower = own.within(limits)
        return replace(self, max_tokens=lower.max_output_tokens or -1, max_seconds=lower.max_duration)


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """The last item of every stream that did not fail. Durations are nanoseconds.

    ``prompt_tokens`` includes the ``cached_tokens`` that were reused; ``tokens`` are the sampled ones; ``stop_string``
    is the stop string that ended the text, empty when the model ended it.
    """

    reason: Literal["stop", "length"]
    prompt_tokens: int
    cached_tokens: int
    tokens: tuple[int, ...]
    prefill_ns: int
    decode_ns: int
    stop_string: str = ""


class Engine(Protocol):
    """One loaded model that generates for many requests at once."""

    @property
    def context_length(self) -> int:
        """Context length of one sequence in tokens."""

    @property
    def slots(self) -> int:
        """Sequences that are decoded together."""

    @property
    def size_bytes(self) -> int:
        """Memory of weights, KV cache and compute buffers."""

    @property
    def vram_bytes(self) -> int:
        """The part of ``size_bytes`` that is on GPUs."""

    @property
    def offload(self) -> Offload:
        """What is on which GPU."""

    @property
    def running(self) -> int:
        """Generations with a slot."""

    @property
    def waiting(self) -> int:
        """Generations that wait for a slot."""

    @property
    def kv_cells_used(self) -> int:
        """Cells of the KV cache that hold tokens."""

    @property
    def metrics(self) -> EngineMetrics:
        """Totals since the model was loaded."""

    @property
    def stalled_for(self) -> float:
        """Seconds without progress while there is work; 0 without work, infinite when the engine's thread has ended."""

    @property
    def adds_bos(self) -> bool:
        """Whether tokenizing with ``add_special`` prepends the BOS token."""

    @property
    def bos_text(self) -> str:
        """The BOS token as chat templates write it; empty when the model has none."""

    @property
    def eos_text(self) -> str: ...

    @property
    def special_tokens(self) -> SpecialTokens:
        """The tokens of prompts that are put together without a chat template."""

    @property
    def rerank_template(self) -> str:
        """The template of a reranker's prompt, with ``{query}`` and ``{document}``; empty when the model has none."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]: ...

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token, perhaps a part of a character. Raises ValueError as ``detokenize`` does."""

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Raises ValueError for a token that is not in the vocabulary."""

    @property
    def accepts_images(self) -> bool:
        """Whether a projector is loaded."""

    def prepare_image(self, data: bytes, sha256: str) -> PreparedImage:
        """Decode an image file and return what stands for it in a prompt. Blocks; safe from any thread.

        ``sha256`` is the digest of ``data`` in hex digits. Raises InvalidPrompt where the file is damaged or the model
        cannot use it, and ApiError 413 or 503 without memory for it.
        """

    def generate(self, task: GenerationTask) -> AsyncGenerator[TextChunk | GenerationResult, None]:
        """Queue the task and yield its text as it is generated, then the result.

        Closing the generator (``contextlib.aclosing``) cancels the generation within one step and frees its slot.
        Raises PromptTooLong, InvalidPrompt and InvalidGrammar before the first item, EngineFailed at any time.
        """

    async def embed(self, inputs: Sequence[Sequence[int]], adapter: str = "") -> list[array[float]]:
        """Return a float32 vector of length 1 for each input, in their order; a reranker's scores are not normalized.

        ``adapter`` is the name of a loaded adapter. Cancelling drops the inputs within one step. Raises PromptTooLong,
        InvalidPrompt and EngineFailed.
        """

    def close(self) -> None:
        """Fail running and waiting requests and free all memory; blocks for about one step."""
