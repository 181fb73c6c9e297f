"""Runs a text through a format's parser, cut in any way."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from corral_server.runner.tool_calls.calls import ParsedCall, ParsedText, ParserConfig
from corral_server.runner.tool_calls.detection import detect_format

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
PARIS = ParsedCall("get_weather", {"city": "Paris"})
ROME = ParsedCall("get_weather", {"city": "Rome", "days": 2})


def parsed(template: str, pieces: Sequence[str], wanted: ParserConfig) -> ParsedText:
    """All that comes out of the pieces."""
    parser = detect_format(template).parser(wanted)
    assert parser is not None
    parts = [*(parser.push(piece) for piece in pieces), parser.end()]
    return ParsedText(
        "".join(part.thinking for part in parts),
        "".join(part.content for part in parts),
        tuple(call for part in parts for call in part.calls),
    )


def whole(template: str, text: str, *, thinks: bool = True, prompt_end: str = "") -> ParsedText:
    return parsed(template, [text], ParserConfig(thinks, [WEATHER], prompt_end))


def cut(text: str, at: Sequence[int]) -> list[str]:
    cuts = sorted({index % (len(text) + 1) for index in at})
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


CUTS = st.lists(st.integers(0, 2000), max_size=15)
