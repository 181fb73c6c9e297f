"""What comes of a decoded batch: tokens are sampled, their text goes to the streams, generations end.

What always holds: a failure ends only the generation it concerns, with an EngineError in its stream; a generation that
ended has freed its sampler and left its slot, whose cells stay for a prompt that begins the same.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Literal

from corral_server.runner.generation import EngineError
from corral_server.runner.llama import LlamaContext, LlamaModel
from corral_server.runner.measures import EngineMeasures
from corral_server.runner.memory import SlotMemory
from corral_server.runner.sequence import Generation, Slot
from corral_server.runner.stream import Delivery

log = logging.getLogger("corral.runner.engine")


@dataclass(frozen=True, slots=True)
class Taken:
    """A slot's part of a batch: ``count`` tokens of what is pending, then its draft; ``last`` is its last index."""

    slot: Slot
    count: int
    last: int


class Outcome:
    """Used by the engine's thread alone."""

    def __init__(self, model: LlamaModel, context: LlamaContext, memory: SlotMemory, measures: EngineMeasures) -> None:
        self._measures = measures
        self._model = model
        self._context = context
        self._memory = memory

    def advance(self, taken: Taken, out: Delivery) -> None:
        """After a batch that was decoded."""
        slot, generation = taken.slot, taken.slot.generation
        if generation is None:
            return
        slot.cells += generation.pending[: taken.count]
        del generation.pending[: taken.count]
        if generation.pending:
            return
        draft, generation.draft = generation.draft, []
        first = taken.last - len(draft)
        accepted = 0
        while (token := self._sample(slot, generation, first + accepted, out)) is not None:
            if accepted == len(draft) or token != draft[accepted]:
                break
            slot.cells.append(token)
            accepted += 1
        if accepted < len(draft):
            self._memory.restore(slot)
        if draft:
            self._measures.speculated(len(draft), accepted)
            if generation.lookup is not None:
                generation.lookup.note(len(draft), accepted)

    def finish(self, slot: Slot, generation: Generation, reason: Literal["stop", "length"], out: Delivery) -> None:
        rest = generation.rest()
        if rest is not None:
            out.append((generation.stream, rest))
        out.append((generation.stream, generation.finish(reason)))
        self._measures.ended[reason] += 1
        self.end(slot)

    def fail(self, slot: Slot, error: EngineError, out: Delivery) -> None:
        log.warning("a generation failed: %s", error)
        self._measures.ended["failed"] += 1
        if slot.generation is not None:
            out.append((slot.generation.stream, error))
        self.end(slot)
        self._memory.forget(slot)

    def end(self, slot: Slot) -> None:
        """Takes the generation out of the slot."""
        if slot.generation is not None:
            slot.generation.chooser.close()
        slot.generation = None

    def _sample(self, slot: Slot, generation: Generation, index: int, out: Delivery) -> int | None:
        """The next token from the logits of batch entry ``index``; None when the generation ended."""
        try:
            token = generation.chooser.choose(self._context, index)
        except EngineError as error:
            self.fail(slot, error, out)
            return None
        if not generation.generated:
            self._measures.began(generation.cached)
        self._measures.generated += 1
        generation.sampled(token)
        if self._model.ends(token):
            self.finish(slot, generation, "stop", out)
            return None
        data = self._model.piece(token, special=token in generation.task.shown)
        piece = generation.said(data, partial(self._context.logits, index))
        if piece is not None:
            out.append((generation.stream, piece))
        if generation.text.stopped:
            self.finish(slot, generation, "stop", out)
        elif len(generation.generated) >= generation.limit:
            self.finish(slot, generation, "length", out)
        return token if slot.generation is not None else None
