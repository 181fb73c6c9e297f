"""What the API routes ask of the engine and what they get back: plain values and the engine's Protocol.

The routes render templates, parse options and shape responses; the engine knows tokens, sequences and samplers.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from corral_server.runner.measures import EngineMeasures


@dataclass(frozen=True, slots=True)
class Sampling:
    """Per-request sampling, with Ollama's names and defaults; ``seed`` -1 draws one."""

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = -1


@dataclass(frozen=True, slots=True)
class Task:
    """One generation. ``prompt`` is tokens; ``grammar`` GBNF text; ``stop`` ends it before the stop text is shown.

    ``max_tokens`` -1 means no limit but ten times the context. ``keep`` tokens at the start survive a context shift;
    without ``shift`` a full context ends the generation with reason ``length``. With ``logprobs`` the pieces bring what
    the model thought of each token and of the ``top_logprobs`` likeliest ones. ``shown`` are control tokens whose text
    is part of what comes out: the marks of thinking and calls. ``adapter`` is the name of one that the engine loaded.
    """

    prompt: tuple[int, ...]
    sampling: Sampling = Sampling()
    grammar: str | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int = -1
    keep: int = 4
    shift: bool = True
    logprobs: bool = False
    top_logprobs: int = 0
    shown: frozenset[int] = frozenset()
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token in the model's own distribution, before options and grammar change it.

    ``logprob`` is a natural logarithm, at most 0 and finite; ``data`` are the token's bytes, perhaps half a character,
    which ``token`` shows as U+FFFD; ``top`` are the likeliest tokens, best first, each without a ``top`` of its own.
    """

    token: str
    logprob: float
    data: bytes
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that became certain: valid UTF-8, and no part of a possible stop string.

    ``logprobs`` are those of the tokens that the text ends (with ``Task.logprobs``): a token is held back as long as
    any of its characters, so the text of a piece may begin within the token before; the last piece may have no text.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Finish:
    """The last item of every stream that did not fail. Durations are nanoseconds.

    ``prompt_tokens`` includes the ``cached_tokens`` that were reused; ``generated`` are the tokens sampled; ``stop`` is
    the stop text that ended it, empty where the model ended by itself.
    """

    reason: Literal["stop", "length"]
    prompt_tokens: int
    cached_tokens: int
    generated: tuple[int, ...]
    prompt_ns: int
    generate_ns: int
    stop: str = ""


class EngineError(Exception):
    """Base of what the engine refuses or fails with.

    EngineError
    ├── PromptTooLong     the prompt exceeds the context and may not be shifted (client's fault)
    ├── InvalidPrompt     a token is not in the vocabulary (client's fault)
    ├── InvalidGrammar    the grammar does not compile or lets nothing be said (client's fault)
    ├── EngineFailed      decoding failed; the next request works
    └── LoadFailed        the weights cannot be loaded; the text names the file
    """


class PromptTooLong(EngineError):
    pass


class InvalidPrompt(EngineError):
    pass


class InvalidGrammar(EngineError):
    pass


class EngineFailed(EngineError):
    pass


class LoadFailed(EngineError):
    pass


class Engine(Protocol):
    """One loaded model that generates for many requests at once."""

    @property
    def context_length(self) -> int:
        """Tokens of context for one sequence."""

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
    def running(self) -> int:
        """Generations that have a slot."""

    @property
    def waiting(self) -> int:
        """Generations that wait for one."""

    @property
    def cells_held(self) -> int:
        """Cells of the KV cache that hold tokens."""

    @property
    def measures(self) -> EngineMeasures:
        """What it has counted since it was loaded."""

    @property
    def stalled_for(self) -> float:
        """Seconds without progress while there is work; 0 without work, infinite when the engine is dead."""

    @property
    def adds_bos(self) -> bool:
        """Whether tokenizing with ``add_special`` puts the BOS token in front."""

    @property
    def bos_text(self) -> str:
        """The BOS token as chat templates write it; empty when the model has none."""

    @property
    def eos_text(self) -> str: ...

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]: ...

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Raises ValueError for a token that is not in the vocabulary."""

    def generate(self, task: Task) -> AsyncGenerator[Piece | Finish, None]:
        """Queues the task and yields its text as it comes, a Finish last.

        Closing it (``contextlib.aclosing``) cancels the generation within one decode step and frees its cells.
        Raises PromptTooLong, InvalidPrompt, InvalidGrammar before the first item and EngineFailed at any time.
        """

    async def embed(self, inputs: Sequence[Sequence[int]], adapter: str = "") -> list[array[float]]:
        """A vector of 32-bit floats and of length 1 for each input, in their order; a reranker's scores as they are.

        ``adapter`` is the name of one that the engine loaded.
        Cancelling it gives the inputs up within one step. Raises PromptTooLong, InvalidPrompt and EngineFailed.
        """

    def close(self) -> None:
        """Fails what runs or waits and frees all memory; blocks for about one step."""
