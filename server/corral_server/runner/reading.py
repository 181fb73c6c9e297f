"""From the engine's pieces to deltas: the one stage between a generation and the writer of its API.

What always holds: text is shown once and in order; what is held back, because it may become a tag or a call, is shown
at the end at the latest; logprobs go with the text of their tokens.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from corral_server.runner.delta import Delta, ToolCall
from corral_server.runner.formats.calls import Call, Parsed, Parser, Wanted
from corral_server.runner.formats.families import format_of
from corral_server.runner.generation import Engine, Piece, Task, TokenLogprob
from corral_server.runner.tools import Tool

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_END_TOKENS = 24
"""Tokens at the end of a prompt that surely hold an opening tag and the white space after it."""


class Reader(Protocol):
    """One generation's text."""

    def push(self, piece: Piece) -> Delta:
        """What became certain by this piece; falsy when that is nothing."""

    def end(self) -> Delta:
        """What was still held when the generation ended."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a request wants to have told apart. ``template`` is what the prompt was made with; empty for a raw one."""

    template: str = ""
    thinks: bool = False
    tools: Sequence[Tool] = ()


PLAIN = Reading()
"""The text as it comes."""


def reader_for(reading: Reading, task: Task, engine: Engine) -> Reader:
    """Some templates end a prompt with an opening tag, so the end of the prompt counts."""
    if not reading.template:
        return _Plain()
    try:
        end = engine.detokenize(task.prompt[-_END_TOKENS:])
    except ValueError:  # a token outside the vocabulary, which the engine is about to refuse
        end = ""
    parser = format_of(reading.template).parser(Wanted(reading.thinks, reading.tools, end))
    return _Plain() if parser is None else _Parsing(parser)


class _Plain:
    """Nothing is told apart."""

    def push(self, piece: Piece) -> Delta:
        return Delta(piece.text, logprobs=piece.logprobs)

    def end(self) -> Delta:
        return Delta()


class _Parsing:
    """Numbers the calls, and keeps logprobs until something is shown that they belong to."""

    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self._calls = 0
        self._logprobs: list[TokenLogprob] = []

    def push(self, piece: Piece) -> Delta:
        self._logprobs += piece.logprobs
        parsed = self._parser.push(piece.text)
        return self._delta(parsed) if parsed.thinking or parsed.content or parsed.calls else Delta()

    def end(self) -> Delta:
        return self._delta(self._parser.end())

    def _delta(self, parsed: Parsed) -> Delta:
        calls = tuple(self._numbered(call) for call in parsed.calls)
        logprobs, self._logprobs = tuple(self._logprobs), []
        return Delta(parsed.content, parsed.thinking, calls, logprobs)

    def _numbered(self, call: Call) -> ToolCall:
        index, self._calls = self._calls, self._calls + 1
        return ToolCall(call.id or new_id(), index, call.name, call.arguments)


def new_id() -> str:
    """``call_`` and eight letters or digits, as Ollama names calls that the model gave no id."""
    return "call_" + "".join(secrets.choice(_ALPHABET) for _ in range(8))
