"""A model's facts as the last words of a pod: text that is small enough for a termination message.

Kubernetes keeps 4,096 bytes of it. What does not fit is left out, the template first: it is for clients that ask while
the model is cold, and the runner tells it when it has loaded. Sizes, on which a start depends, always fit.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace

from corral_core.facts import ModelFacts
from corral_core.jsonfields import mapping

LIMIT = 4096
_MARK = "corral-facts:"
_MOST = 1 << 20
"""Bytes that a message may unfold to; facts with the longest template have a quarter of it."""


def pack(facts: ModelFacts) -> str:
    """Printable text of at most ``LIMIT`` characters, all ASCII. Raises ValueError for facts that no cut makes fit."""
    short = replace(facts, template="")
    for candidate in (facts, short, replace(short, info={})):
        data = json.dumps(candidate.to_json(), separators=(",", ":")).encode()
        packed = _MARK + base64.b85encode(zlib.compress(data, 9)).decode("ascii")
        if len(packed) <= LIMIT:
            return packed
    raise ValueError("the model's facts are too long to be told")


def unpack(message: str) -> ModelFacts:
    """Raises ValueError when the text is something else."""
    said = message.strip()
    if not said.startswith(_MARK):
        raise ValueError("these are no facts of a model")
    try:
        unfolding = zlib.decompressobj()
        data = unfolding.decompress(base64.b85decode(said.removeprefix(_MARK)), _MOST)
    except zlib.error as error:
        raise ValueError(f"the model's facts are damaged: {error}") from error
    return ModelFacts.from_json(mapping(json.loads(data)))
