"""Values and interfaces shared by all model formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from corral_server.runner.sampling.grammar import Preamble
from corral_server.runner.tool_calls.tool import Tool


class MalformedCall(ValueError):
    """Text that is not a tool call."""


class IncompleteCall(MalformedCall):
    """Text that is not a tool call yet and may become one."""


@dataclass(frozen=True, slots=True)
class ParsedCall:
    """A tool call as the model wrote it. ``id`` is empty if the model gave none."""

    name: str
    arguments: Mapping[str, object]
    id: str = ""


class ParsedText(NamedTuple):
    """Output that can be emitted, in this order. Every field may be empty."""

    thinking: str = ""
    content: str = ""
    calls: tuple[ParsedCall, ...] = ()


class FormatParser(Protocol):
    """Parser of one generation's text.

    The result does not depend on where the text is cut, and no text is lost. White space beside tags and calls belongs
    to them.
    """

    def push(self, text: str) -> ParsedText: ...

    def end(self) -> ParsedText:
        """Return the text that was held back. An unfinished call becomes text."""


@dataclass(frozen=True, slots=True)
class ParserConfig:
    """What the parser separates: thinking, calls of ``tools``. ``prompt_end`` is the end of the prompt."""

    thinks: bool = False
    tools: Sequence[Tool] = ()
    prompt_end: str = ""


class ModelFormat(Protocol):
    """How one model family writes thinking and tool calls.

    The formats follow the families' chat templates and the parsers of llama.cpp (``common/chat.cpp``) and Ollama
    (``model/parsers``).
    """

    @property
    def markers(self) -> Sequence[str]:
        """Texts that a vocabulary may hold as control tokens, which have no text by default."""

    def parser(self, config: ParserConfig) -> FormatParser | None:
        """Return the parser of one generation; None if its text needs no parsing."""

    def call_frame(self, name: str) -> tuple[str, str]:
        """Return the text before and after the JSON arguments of a call of this tool."""

    def call_preamble(self, config: ParserConfig) -> Preamble:
        """Return what the model may write before a call."""

    def answer_preamble(self, config: ParserConfig) -> Preamble:
        """Return what the model may write before an answer in a given format."""
