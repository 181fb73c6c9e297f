"""Memory estimate and load settings of each Model's runner on this machine.

``parallel: auto`` means four slots, or one if four take more memory than all runners may use together. The choice is
estimate while the Model has no runner; a running one keeps its choice. With ``contextPolicy: Grow`` its context becomes
longer when a pending request asks for more and it fits that memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from corral_core.base.errors import InvalidSetting
from corral_core.model.effective_spec import effective_spec
from corral_core.weights.load_config import configs_with_context, growth_lengths, load_configs, load_request
from corral_core.weights.memory_estimate import MemoryEstimate, estimate_memory
from corral_server.local.files import ListedModel

NO_SETTINGS: Mapping[str, str] = {}
NO_CONTEXTS: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class _Choice:
    """``digest`` identifies the spec of this choice. ``longest`` is the context that requests can ask for, or 0."""

    digest: str
    estimate: MemoryEstimate
    settings: Mapping[str, str]
    longest: int = 0


class RunnerMemory:
    """Chooses a load config per Model. ``environ`` is the environment of the runners."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._choices: dict[str, _Choice] = {}

    def update(
        self,
        listed: Iterable[ListedModel],
        *,
        running: Collection[str],
        capacity: int,
        contexts: Mapping[str, int] = NO_CONTEXTS,
    ) -> None:
        """Update the choices. ``running`` are the keys that have runners, removed Models included.

        ``capacity`` is the bytes available to all runners together, ``contexts`` are the contexts that pending requests
        ask for.
        """
        found = {key: chosen for key, chosen in self._choices.items() if key in running}
        for each in listed:
            known = found.get(each.model.key)
            chosen = known if known is not None and known.digest == each.digest else self._choose(each, capacity)
            if chosen is not None:
                wanted = contexts.get(each.model.key, 0)
                found[each.model.key] = self._grown(each, chosen, capacity=capacity, wanted=wanted)
        self._choices = found

    @property
    def bytes(self) -> dict[str, int]:
        """Estimated bytes by key, for Models whose metadata is known."""
        return {key: chosen.estimate.total for key, chosen in self._choices.items()}

    def context(self, key: str) -> tuple[int, int]:
        """Return the context of the Model's next runner, and the longest that requests can ask for; 0 if unknown."""
        chosen = self._choices.get(key)
        return (chosen.estimate.load_config.context_length, chosen.longest) if chosen is not None else (0, 0)

    def settings(self, key: str) -> Mapping[str, str]:
        """Return the settings that the Model's runner gets in addition to its environment."""
        chosen = self._choices.get(key)
        return chosen.settings if chosen is not None else NO_SETTINGS

    def _grown(self, listed: ListedModel, chosen: _Choice, *, capacity: int, wanted: int) -> _Choice:
        """Return the choice with the context that is asked for, as far as it fits."""
        length, metadata = chosen.estimate.load_config.context_length, listed.weights.metadata
        longest, spec = length, listed.model.spec
        for longer in growth_lengths(spec, metadata, length) if metadata is not None else ():
            choice = self._choose(listed, capacity, passed=longer)
            if choice is None or choice.estimate.total > capacity:
                break
            longest = longer
            if length < wanted:
                length, chosen = longer, choice
        return replace(chosen, longest=longest if spec.context_policy == "Grow" else 0)

    def _choose(self, listed: ListedModel, capacity: int, *, passed: int = 0) -> _Choice | None:
        candidates = load_candidates(listed, self._environ, passed=passed)
        if not candidates:
            return None
        estimate = next((candidate for candidate in candidates if candidate.total <= capacity), candidates[-1])
        parallel = str(estimate.load_config.parallel)
        settings = {} if estimate is candidates[0] else {"OLLAMA_NUM_PARALLEL": parallel}
        if passed:
            settings["CORRAL_CONTEXT_LENGTH"] = str(passed)
        return _Choice(listed.digest, estimate, settings)


def load_candidates(listed: ListedModel, environ: Mapping[str, str], *, passed: int = 0) -> list[MemoryEstimate]:
    """Return the estimates of the load configs that the Model allows, best first; empty without metadata.

    ``passed`` is a context length in place of the Model's, 0 for the Model's own.
    """
    metadata = listed.weights.metadata
    if metadata is None or metadata.dimensions is None:
        return []
    try:
        request = load_request(effective_spec(listed.model.spec, listed.weights.defaults), environ)
    except InvalidSetting:
        return []  # the runner rejects it too, with the reason
    gpus, adapters = listed.model.spec.gpu.fixed_count, metadata.adapters_size
    return [
        estimate_memory(metadata.dimensions, load_config, gpus=gpus, adapters=adapters)
        for load_config in (
            configs_with_context(request, metadata, passed) if passed else load_configs(request, metadata)
        )
    ]
