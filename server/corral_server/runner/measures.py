"""What the engine counts of its own work: tokens, the time that they took, how full its batches were.

Written by the engine's thread alone; whoever reads it meanwhile gets each number as it is at that moment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from corral_core.metrics import Histogram

if TYPE_CHECKING:
    from corral_server.runner.outcome import Taken

ENDS = ("stop", "length", "failed", "cancelled")
"""How generations end. Each is told from the start as 0, so that the first one can be seen."""
SEQUENCES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class EngineMeasures:
    """Tokens and seconds. A step that reads prompts counts as prefill, any other as decoding; ``decoded`` are the
    tokens generated in the latter, so that ``decoded / decode_seconds`` is a speed. ``ended`` counts by reason.
    ``drafted`` tokens were decoded on speculation, of which the sampler ``accepted`` some.
    """

    __slots__ = (
        "_reads",
        "accepted",
        "cached",
        "decode_seconds",
        "decoded",
        "drafted",
        "ended",
        "generated",
        "prefill_seconds",
        "prompted",
        "sequences",
        "tokens",
    )

    def __init__(self) -> None:
        self.prompted = self.cached = self.generated = self.decoded = self.drafted = self.accepted = 0
        self._reads = False
        self.prefill_seconds = self.decode_seconds = 0.0
        self.ended = Counter(dict.fromkeys(ENDS, 0))
        self.sequences = Histogram(SEQUENCES)
        self.tokens = Histogram(TOKENS)

    def stepped(self, taken: Sequence[Taken], seconds: float) -> None:
        """A batch was decoded; called before anything is made of it."""
        prompt = total = 0
        for part in taken:
            total += part.count
            generation = part.slot.generation
            if generation is not None and not generation.generated:
                prompt += part.count
        self.sequences.observe(len(taken))
        self.tokens.observe(total)
        self.prompted += prompt
        self._reads = prompt > 0
        if prompt:
            self.prefill_seconds += seconds
        else:
            self.decode_seconds += seconds
            self.decoded += len(taken)

    def speculated(self, drafted: int, accepted: int) -> None:
        """What became of a draft in the batch that was decoded last."""
        self.drafted += drafted
        self.accepted += accepted
        if not self._reads:
            self.decoded += accepted

    def began(self, cached: int) -> None:
        """A generation has its first token; ``cached`` tokens of its prompt were there already."""
        self.cached += cached
