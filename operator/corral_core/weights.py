"""The files that a Model is served from, read together as its facts: the weights, and the LoRA adapters over them.

Only the header of the weights is read, and of the adapters, which are loaded whole, only how long they are. Facts are
of these files alone, so a Model whose list of adapters is edited has none until they have been read again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from corral_core.facts import ModelFacts
from corral_core.gguf_facts import read_facts
from corral_core.model import ModelSpec
from corral_core.source import locate, parse_source


def read_model(spec: ModelSpec, pvc_root: Path) -> ModelFacts:
    """The facts of a Model, as far as this machine has its files. Raises SourceError, GGUFError and OSError."""
    return about(read_facts(locate(parse_source(spec.source), pvc_root)), spec, adapters_size(spec, pvc_root))


def about(facts: ModelFacts, spec: ModelSpec, adapters: int) -> ModelFacts:
    """Facts of the weights as those of a Model whose adapters have so many bytes."""
    return replace(
        facts,
        source=spec.source,
        sha256=spec.sha256 or "",
        adapters=adapters_digest(spec),
        adapters_size=adapters,
    )


def are_of(facts: ModelFacts, spec: ModelSpec) -> bool:
    """Whether they are complete, and were read for a Model with these files."""
    read_for = facts.source, facts.sha256, facts.adapters
    return facts.shape is not None and read_for == (spec.source, spec.sha256 or "", adapters_digest(spec))


def adapters_size(spec: ModelSpec, pvc_root: Path) -> int:
    """Bytes of all adapters together. Raises SourceError for one that is missing, and OSError."""
    return sum(locate(parse_source(one.source), pvc_root).stat().st_size for one in spec.adapters)


def adapters_digest(spec: ModelSpec) -> str:
    """Which adapters these are, in few characters; empty without any."""
    if not spec.adapters:
        return ""
    files = [[one.source, one.sha256 or ""] for one in spec.adapters]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16]
