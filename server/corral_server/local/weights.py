"""What is known of a Model's weights before anybody asks for it: the facts in the header, the adapters' sizes.

Reading is repeated only when the file changed, so it may be asked for at every look at the Model files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from corral_core.errors import GGUFError, SourceError
from corral_core.facts import ModelFacts
from corral_core.gguf_facts import read_facts
from corral_core.model import Model
from corral_core.source import locate, parse_source
from corral_core.weights import about, adapters_size


@dataclass(frozen=True, slots=True)
class Weights:
    """``problem`` is why there are no facts: the file is missing, or is no model."""

    facts: ModelFacts | None
    problem: str | None = None


class WeightsReader:
    """Reads headers; blocking, so it is called from a thread."""

    def __init__(self, pvc_root: Path) -> None:
        self._pvc_root = pvc_root
        self._known: dict[Path, tuple[tuple[int, int], Weights]] = {}

    def read(self, model: Model) -> Weights:
        try:
            path = locate(parse_source(model.spec.source), self._pvc_root)
            status = path.stat()
            adapters = adapters_size(model.spec, self._pvc_root)
        except (SourceError, OSError) as error:
            return Weights(None, str(error))
        stamp = (status.st_mtime_ns, status.st_size)
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            known = self._known[path] = (stamp, _read(path))
        facts = known[1].facts
        return replace(known[1], facts=about(facts, model.spec, adapters)) if facts else known[1]


def _read(path: Path) -> Weights:
    try:
        return Weights(read_facts(path))
    except (GGUFError, OSError) as error:
        return Weights(None, str(error))
