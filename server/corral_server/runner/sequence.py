"""A slot's cells and the generation that runs in it.

What always holds: ``Slot.cells`` are exactly the tokens whose keys and values llama.cpp holds for that sequence, at
positions 0 to len - 1; ``Generation.pending`` are the tokens still to be decoded after them. With one pending token a
generation is a running stream, with more its prompt is being read: the batch needs no other state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from corral_server.runner.generation import Finish, Piece, Task
from corral_server.runner.sampling import Chooser
from corral_server.runner.stream import Stream
from corral_server.runner.text import TextAssembler

if TYPE_CHECKING:
    from corral_server.runner.logprobs import ScoredText
    from corral_server.runner.prefix import Source
    from corral_server.runner.speculation import Lookup


@dataclass(eq=False, slots=True)
class Generation:
    """One task from the queue to its Finish. Times are ``perf_counter_ns``."""

    task: Task
    stream: Stream
    chooser: Chooser
    prompt: tuple[int, ...]
    keep: int
    limit: int
    text: TextAssembler
    scored: ScoredText | None = None
    """Takes the place of ``text`` when logprobs are asked for."""
    pending: list[int] = field(default_factory=list)
    source: Source | None = None
    """Where the beginning of the prompt is copied from; until then it waits."""
    draft: list[int] = field(default_factory=list)
    """Tokens that may follow the pending one, in this step's batch."""
    lookup: Lookup | None = None
    cached: int = 0
    generated: list[int] = field(default_factory=list)
    began: int = 0
    first: int = 0

    def start(self, cached: int) -> None:
        """It has a slot, which holds ``cached`` tokens of its prompt."""
        self.began = time.perf_counter_ns()
        self.inherit(cached)

    def inherit(self, cached: int) -> None:
        """Its slot holds the first ``cached`` tokens of its prompt; the others it reads itself."""
        self.cached = cached
        self.pending = list(self.prompt[cached:])
        self.source = None

    def sampled(self, token: int) -> None:
        if not self.generated:
            self.first = time.perf_counter_ns()
        self.generated.append(token)
        self.pending = [token]
        if self.lookup is not None:
            self.lookup.extend((token,))

    def said(self, data: bytes, logits: Callable[[], memoryview]) -> Piece | None:
        """What can be shown now that the newest token, which shows as ``data``, was sampled from ``logits``."""
        if self.scored is not None:
            return self.scored.push(data, self.generated[-1], logits=logits())
        text = self.text.push(data)
        return Piece(text) if text else None

    def rest(self) -> Piece | None:
        """What was held back when the generation ended."""
        if self.scored is not None:
            return self.scored.flush()
        text = self.text.flush()
        return Piece(text) if text else None

    def finish(self, reason: Literal["stop", "length"]) -> Finish:
        now = time.perf_counter_ns()
        first = self.first or now
        return Finish(
            reason=reason,
            prompt_tokens=len(self.prompt),
            cached_tokens=self.cached,
            generated=tuple(self.generated),
            prompt_ns=first - self.began,
            generate_ns=now - first,
            stop=self.text.stopped_by,
        )


@dataclass(eq=False, slots=True)
class Slot:
    """One of llama.cpp's sequences."""

    sequence: int
    cells: list[int] = field(default_factory=list)
    generation: Generation | None = None
    used: int = 0
    """When it was last given to a generation, as a count: the longest unused slot loses its cells first."""
    adapter: str = ""
    """The adapter that the cells were read with: they mean something else to any other."""
    shifted: int | None = None
    """From this cell on they were moved in a full window, and read after tokens that are gone: no prompt is to get
    them, even where it has the same tokens."""

    @property
    def reusable(self) -> list[int]:
        """The cells that are as a prompt of these tokens would make them."""
        return self.cells if self.shifted is None else self.cells[: self.shifted]

    def hold(self, cells: list[int]) -> None:
        """These, read from the beginning on, in place of what it had."""
        self.cells, self.shifted = cells, None

    def shares(self, prompt: Sequence[int], adapter: str = "") -> int:
        """How many tokens at the beginning of a prompt for ``adapter`` it holds already."""
        return common_prefix(self.reusable, prompt) if self.adapter == adapter else 0


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the beginning that both have; compares slices, because prompts are long and mostly equal."""
    low, high = 0, min(len(left), len(right))
    if list(left[:high]) == list(right[:high]):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if list(left[low:middle]) == list(right[low:middle]):
            low = middle
        else:
            high = middle
    return low


def choose_slot(
    idle: Sequence[Slot], prompt: Sequence[int], *, running: Collection[int] = (), adapter: str = ""
) -> tuple[Slot, int]:
    """The idle slot that holds most of the prompt, and how much of it.

    A slot of which less than half matches keeps its cells for what they were read for: the match is copied from it
    (``prefix.py``). Then an empty slot is taken, one beside the ``running`` sequences, the longest unused one, in this
    order: llama.cpp decodes only sequences with consecutive numbers together, so every gap costs a pass over the
    weights in each step.
    """
    best, shared = max(((slot, slot.shares(prompt, adapter)) for slot in idle), key=lambda found: found[1])
    if shared * 2 > len(best.cells):
        return best, shared
    chosen = min(idle, key=lambda slot: (bool(slot.cells), passes({*running, slot.sequence}), slot.used))
    return chosen, chosen.shares(prompt, adapter)


def passes(sequences: Collection[int]) -> int:
    """How many runs of consecutive numbers these are, each of which is decoded by itself."""
    return sum(1 for sequence in sequences if sequence - 1 not in sequences)
