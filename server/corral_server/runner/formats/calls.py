"""The values and the interfaces that all formats share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from corral_server.runner.tools import Tool


class Malformed(ValueError):
    """A text that is no call."""


class Unfinished(Malformed):
    """A text that is no call yet and may become one."""


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
    """One generation's text. Where it is cut does not matter to what comes out in all, and no text is lost.

    White space beside tags and calls belongs to them.
    """

    def push(self, text: str) -> Parsed: ...

    def end(self) -> Parsed:
        """What was still held; an unfinished call comes out as text."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be told apart; ``prompt_end`` are the last characters of the prompt."""

    thinks: bool = False
    tools: Sequence[Tool] = ()
    prompt_end: str = ""


class Format(Protocol):
    """How one family of models writes."""

    @property
    def markers(self) -> Sequence[str]:
        """Texts that a model may hold as control tokens, which otherwise have no text."""

    def parser(self, wanted: Wanted) -> Parser | None:
        """For one generation; None when its text is shown as it is."""

    def frame(self, name: str) -> tuple[str, str]:
        """What comes before and after the JSON arguments of a call of this tool."""

    def lead(self, wanted: Wanted) -> str:
        """GBNF for what may come before a call: a thought, or nothing."""

    def answer_lead(self, wanted: Wanted) -> str:
        """GBNF for what comes before an answer."""
