"""How the runners of a Model load, as it was chosen: memory, GPUs and the reason."""

from __future__ import annotations

import json
from dataclasses import dataclass

from corral_core.planning.gpus.request import GpuRequest
from corral_core.weights.memory_estimate import MemoryEstimate


@dataclass(frozen=True, slots=True)
class LoadChoice:
    """``estimate`` is None while the metadata of the weights is not known, ``gpus`` is None on the CPU.

    ``max_context_length`` is the longest context that requests can ask for in tokens, 0 if they cannot.
    ``why`` says with numbers why this way and none of the better ones.
    """

    estimate: MemoryEstimate | None = None
    gpus: GpuRequest | None = None
    why: str = ""
    max_context_length: int = 0

    def to_text(self) -> str:
        """Return the annotation of the Deployment, by which running pods keep their way."""
        gpus = {"gpus": self.gpus.to_json()} if self.gpus is not None else {}
        config = self.estimate.load_config if self.estimate is not None else None
        passed = {"contextLength": config.context_length} if config is not None and config.context_passed else {}
        return json.dumps({**gpus, **passed, "why": self.why}, sort_keys=True, separators=(",", ":"))


UNKNOWN_LOAD = LoadChoice()
