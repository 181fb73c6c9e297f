"""Challenges of a ``WWW-Authenticate`` header (RFC 9110, section 11.6.1), as registries send them.

The header is input of another process: its length and the number of challenges are bounded, and what does not parse
ends the list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_MAX_HEADER: Final = 8192
_MAX_CHALLENGES: Final = 8
_SCHEME: Final = re.compile(r"[,\s]*([A-Za-z][A-Za-z0-9._~+-]*)(?:\s+|$)")
_PARAMETER: Final = re.compile(r"""[,\s]*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))""")


@dataclass(frozen=True, slots=True)
class Challenge:
    """``scheme`` and the names of ``parameters`` are in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Return the challenges in their order; an empty tuple if the header is empty, too long or not a challenge."""
    found: list[Challenge] = []
    position = 0
    while len(header) <= _MAX_HEADER and len(found) < _MAX_CHALLENGES and (scheme := _SCHEME.match(header, position)):
        position = scheme.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, position):
            name, quoted, plain = parameter.groups()
            parameters[name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            position = parameter.end()
        found.append(Challenge(scheme[1].lower(), parameters))
    return tuple(found)
