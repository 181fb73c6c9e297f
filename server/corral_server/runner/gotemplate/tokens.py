"""A template's source as tokens: texts, and the words inside of actions, with the white space already trimmed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "open", "close", "field", "variable", "word", "string", "number", "mark"]

_SPACE = " \t\r\n"
_COMMENT = re.compile(r"\{\{(-\s+)?\s*/\*.*?\*/\s*?(\s-)?\}\}", re.DOTALL)
_WORDS = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    | (?P<string>"(?:[^"\\\n]|\\.)*" | `[^`]*` | '(?:[^'\\\n]|\\.)+')
    | (?P<number>[+-]?\d+(?:\.\d+)?)
    | (?P<field>\.[A-Za-z_]\w*)
    | (?P<variable>\$\w*)
    | (?P<word>[A-Za-z_]\w*)
    | (?P<mark>:= | [=|(),.])""",
    re.VERBOSE,
)


class Unsupported(ValueError):
    """What the template has and this engine does not; the text names it."""


@dataclass(frozen=True, slots=True)
class Token:
    """``joined`` when no white space comes before it: ``$x.Name`` is two such tokens."""

    kind: Kind
    text: str
    joined: bool = False


def tokens(source: str) -> Iterator[Token]:
    """Raises Unsupported for what is no template."""
    at, trim = 0, False
    while at < len(source):
        start = source.find("{{", at)
        text = source[at : start if start >= 0 else len(source)]
        trims_before = start >= 0 and source[start + 2 : start + 3] == "-" and source[start + 3 : start + 4] in _SPACE
        text = text.lstrip(_SPACE) if trim else text
        text = text.rstrip(_SPACE) if trims_before else text
        if text:
            yield Token("text", text)
        if start < 0:
            return
        if comment := _COMMENT.match(source, start):
            at, trim = comment.end(), comment[2] is not None
            continue
        inside = list(_action(source, start + (3 if trims_before else 2)))
        yield Token("open", "{{")
        yield from (token for token, _ in inside[:-1])
        yield Token("close", "}}")
        at, trim = inside[-1][1], inside[-1][0].text == "-}}"


def _action(source: str, at: int) -> Iterator[tuple[Token, int]]:
    """The words of an action with where each ends; the last is its closing mark."""
    start, joined = at, False
    while at < len(source):
        if source.startswith("}}", at):
            yield Token("close", "}}"), at + 2
            return
        if source.startswith("-}}", at) and not joined:
            yield Token("close", "-}}"), at + 3
            return
        found = _WORDS.match(source, at)
        if found is None:
            raise Unsupported(f"{{{{{source[start : at + 16]}")
        at = found.end()
        kind = found.lastgroup
        if kind == "space":
            joined = False
        else:
            yield Token(kind, found[0], joined), at  # type: ignore[arg-type]  # the groups are named after the kinds
            joined = True
    raise Unsupported(f"{{{{{source[start : start + 40]} without an end")
