"""Lexer of Go templates: yields texts, trimmed as their actions say, and the words within actions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "open", "close", "field", "variable", "word", "string", "number", "mark"]

_SPACE = " \t\r\n"
_COMMENT_START = re.compile(r"\{\{(?:-[ \t\r\n])?[ \t\r\n]*+/\*")
_COMMENT_END = re.compile(r"[ \t\r\n]*+(-)?\}\}")
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


class UnsupportedTemplate(ValueError):
    """The template has a construct that is not supported; the message names it."""


@dataclass(frozen=True, slots=True)
class Token:
    """``joined`` means that no white space precedes it: ``$x.Name`` is two such tokens."""

    kind: Kind
    text: str
    joined: bool = False


def tokenize(source: str) -> Iterator[Token]:
    """Raises UnsupportedTemplate for an action that is not closed or not readable."""
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
        if comment := _COMMENT_START.match(source, start):
            at, trim = _comment_end(source, comment.end())
            continue
        inside = list(_action(source, start + (3 if trims_before else 2)))
        yield Token("open", "{{")
        yield from (token for token, _ in inside[:-1])
        yield Token("close", "}}")
        at, trim = inside[-1][1], inside[-1][0].text == "-}}"


def _comment_end(source: str, at: int) -> tuple[int, bool]:
    """Return where a comment's action ends and whether it trims the text after it. ``at`` is within the comment."""
    closed = source.find("*/", at)
    end = _COMMENT_END.match(source, closed + 2) if closed >= 0 else None
    if end is None:
        raise UnsupportedTemplate("a comment without an end")
    return end.end(), end[1] is not None


def _action(source: str, at: int) -> Iterator[tuple[Token, int]]:
    """Yield the words of an action with the end of each; the last one is the closing delimiter."""
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
            raise UnsupportedTemplate(f"{{{{{source[start : at + 16]}")
        at = found.end()
        kind = found.lastgroup
        if kind == "space":
            joined = False
        else:
            yield Token(kind, found[0], joined), at  # type: ignore[arg-type]  # the groups are named after the kinds
            joined = True
    raise UnsupportedTemplate(f"{{{{{source[start : start + 40]} without an end")
