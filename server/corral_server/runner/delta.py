"""What the writers are given: a generation's text told apart into thinking, answer and calls of tools.

The same for every API, so that each of them has thinking, tools and logprobs in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from corral_server.runner.generation import TokenLogprob


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A whole call; ``index`` counts the calls of one answer from 0, ``arguments`` is a JSON object."""

    id: str
    index: int
    name: str
    arguments: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Delta:
    """What became certain since the last one. Where several parts are set, they came in this order:

    thinking, content, calls. ``logprobs`` are those of the tokens that the parts were made from.
    """

    content: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.content or self.thinking or self.tool_calls or self.logprobs)


def merged(deltas: Iterable[Delta]) -> Delta:
    """The whole answer."""
    parts = list(deltas)
    return Delta(
        content="".join(part.content for part in parts),
        thinking="".join(part.thinking for part in parts),
        tool_calls=tuple(call for part in parts for call in part.tool_calls),
        logprobs=tuple(logprob for part in parts for logprob in part.logprobs),
    )
