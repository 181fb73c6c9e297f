"""Parsed output of a generation: thinking, content and tool calls, the input of every API's response encoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from corral_server.runner.sampling.text import TokenLogprob


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A complete call. ``index`` counts the calls of one response from 0; ``arguments`` is a JSON object."""

    id: str
    index: int
    name: str
    arguments: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Delta:
    """Output since the previous delta, in this order: thinking, content, calls.

    ``logprobs`` belong to the tokens of these parts.
    """

    content: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.content or self.thinking or self.tool_calls or self.logprobs)


def merge_deltas(deltas: Iterable[Delta]) -> Delta:
    """Return the complete output."""
    parts = list(deltas)
    return Delta(
        content="".join(part.content for part in parts),
        thinking="".join(part.thinking for part in parts),
        tool_calls=tuple(call for part in parts for call in part.tool_calls),
        logprobs=tuple(logprob for part in parts for logprob in part.logprobs),
    )
