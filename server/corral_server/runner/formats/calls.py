"""The values and the interface that all formats share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool as the model wrote it; ``id`` is empty when it gave none."""

    name: str
    arguments: Mapping[str, object]
    id: str = ""


class Parsed(NamedTuple):
    """What became certain, in this order; all may be empty."""

    thinking: str = ""
    content: str = ""
    calls: tuple[Call, ...] = ()


class Parser(Protocol):
    """One generation's text. Where it is cut does not matter to what comes out in all, and no text is lost."""

    def push(self, text: str) -> Parsed: ...

    def end(self) -> Parsed:
        """What was still held; an unfinished call comes out as text."""
