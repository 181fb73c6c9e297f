"""Which format a model speaks, from its chat template."""

from __future__ import annotations

from collections.abc import Sequence

from corral_server.runner.formats.calls import Parsed, Parser
from corral_server.runner.thinking import OPEN, ThinkingSplitter
from corral_server.runner.tools import Tool


def parser_for(template: str, *, thinks: bool, tools: Sequence[Tool], prompt_end: str) -> Parser | None:
    """The parser for one generation; None when there is nothing to be told apart."""
    if not template or not thinks:
        return None
    return _Thinking(ThinkingSplitter(opened=prompt_end.rstrip().endswith(OPEN)))


class _Thinking:
    def __init__(self, splitter: ThinkingSplitter) -> None:
        self._splitter = splitter

    def push(self, text: str) -> Parsed:
        shown = self._splitter.push(text)
        return Parsed(shown.thinking, shown.answer)

    def end(self) -> Parsed:
        shown = self._splitter.flush()
        return Parsed(shown.thinking, shown.answer)
