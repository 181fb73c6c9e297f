"""What each Model's runner takes of this machine's memory, and how it is told to load so that it takes no more.

``parallel: auto`` is four requests at once, or one where four take more than there is for all runners together. It is
decided while the Model has no runner; what runs is left as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from corral_core.errors import InvalidSetting
from corral_core.estimate import Estimate, estimate
from corral_core.load import loads, wish
from corral_server.local.files import Listed

NO_SETTINGS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class _Chosen:
    """``digest`` is of the spec that it was chosen for."""

    digest: str
    made: Estimate
    settings: Mapping[str, str]


class Sizes:
    """``environ`` is what runners are started with."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._chosen: dict[str, _Chosen] = {}

    def look(self, listed: Iterable[Listed], *, running: Collection[str], capacity: int) -> None:
        """These are the Models, and ``running`` those that have runners, of which some may have been removed.

        ``capacity`` is the bytes that there are for all runners together.
        """
        found = {key: chosen for key, chosen in self._chosen.items() if key in running}
        for each in listed:
            known = found.get(each.model.key)
            if known is not None and known.digest == each.digest:
                continue
            chosen = self._choose(each, capacity)
            if chosen is not None:
                found[each.model.key] = chosen
        self._chosen = found

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes, of the Models of which they are known."""
        return {key: chosen.made.total for key, chosen in self._chosen.items()}

    def settings(self, key: str) -> Mapping[str, str]:
        """What the Model's runner has to be told beside its environment."""
        chosen = self._chosen.get(key)
        return chosen.settings if chosen is not None else NO_SETTINGS

    def _choose(self, listed: Listed, capacity: int) -> _Chosen | None:
        ways = ways_of(listed, self._environ)
        if not ways:
            return None
        made = next((way for way in ways if way.total <= capacity), ways[-1])
        settings = NO_SETTINGS if made is ways[0] else {"OLLAMA_NUM_PARALLEL": str(made.load.parallel)}
        return _Chosen(listed.digest, made, settings)


def ways_of(listed: Listed, environ: Mapping[str, str]) -> list[Estimate]:
    """The ways in which a runner of the Model may load, the best first; none where nothing is known."""
    facts = listed.weights.facts
    if facts is None or facts.shape is None:
        return []
    try:
        wanted = wish(listed.model.spec, environ)
    except InvalidSetting:
        return []  # the runner refuses it too, and says so
    gpus, adapters = listed.model.spec.gpu.count, facts.adapters_size
    return [estimate(facts.shape, way, gpus=gpus, adapters=adapters) for way in loads(wanted, facts)]
