"""Output parser: converts the engine's text chunks into deltas for the response encoders.

Invariants:
- Text is emitted once and in order.
- Text that may become a tag or a call is held back, at the latest until the end of the generation.
- Logprobs are emitted with the text of their tokens.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from corral_server.runner.chat.delta import Delta, ToolCall
from corral_server.runner.engine.generation import Engine, GenerationTask
from corral_server.runner.sampling.text import TextChunk, TokenLogprob
from corral_server.runner.tool_calls.calls import FormatParser, ParsedCall, ParsedText, ParserConfig
from corral_server.runner.tool_calls.detection import detect_format
from corral_server.runner.tool_calls.tool import Tool

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_END_TOKENS = 24
"""Tokens at the end of a prompt that are enough to contain an opening tag and the white space after it."""


class OutputParser(Protocol):
    """Parser of one generation."""

    def push(self, chunk: TextChunk) -> Delta:
        """Return the output that became final with this chunk; an empty delta if there is none."""

    def end(self) -> Delta:
        """Return the output that was held back when the generation ended."""


@dataclass(frozen=True, slots=True)
class OutputParserConfig:
    """What to separate from the text. ``template`` is the chat template of the prompt; empty for a raw prompt."""

    template: str = ""
    thinks: bool = False
    tools: Sequence[Tool] = ()


def create_output_parser(config: OutputParserConfig, task: GenerationTask, engine: Engine) -> OutputParser:
    """Return the parser for a task. The end of the prompt counts, because some templates end it with an opening tag."""
    if not config.template:
        return _RawOutputParser()
    try:
        end = engine.detokenize([token for token in task.prompt[-_END_TOKENS:] if token >= 0])  # no cells of images
    except ValueError:  # a token outside the vocabulary, which the engine is about to refuse
        end = ""
    parser = detect_format(config.template).parser(ParserConfig(config.thinks, config.tools, end))
    return _RawOutputParser() if parser is None else _FormatOutputParser(parser)


class _RawOutputParser:
    def push(self, chunk: TextChunk) -> Delta:
        return Delta(chunk.text, logprobs=chunk.logprobs)

    def end(self) -> Delta:
        return Delta()


class _FormatOutputParser:
    """Numbers the calls, and holds back logprobs until text of their tokens is emitted."""

    def __init__(self, parser: FormatParser) -> None:
        self._parser = parser
        self._calls = 0
        self._logprobs: list[TokenLogprob] = []

    def push(self, chunk: TextChunk) -> Delta:
        self._logprobs += chunk.logprobs
        parsed = self._parser.push(chunk.text)
        return self._delta(parsed) if parsed.thinking or parsed.content or parsed.calls else Delta()

    def end(self) -> Delta:
        return self._delta(self._parser.end())

    def _delta(self, parsed: ParsedText) -> Delta:
        calls = tuple(self._numbered(call) for call in parsed.calls)
        logprobs, self._logprobs = tuple(self._logprobs), []
        return Delta(parsed.content, parsed.thinking, calls, logprobs)

    def _numbered(self, call: ParsedCall) -> ToolCall:
        index, self._calls = self._calls, self._calls + 1
        return ToolCall(call.id or new_call_id(), index, call.name, call.arguments)


def new_call_id() -> str:
    """Return ``call_`` and eight letters or digits, Ollama's form of an id for calls without one."""
    return "call_" + "".join(secrets.choice(_ALPHABET) for _ in range(8))
