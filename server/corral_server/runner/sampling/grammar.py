"""Grammars for constrained decoding, as values.

Invariants:
- A text that a vocabulary may hold as one control token (``<|channel|>``) is a marker: control tokens have no text, so
  the compiler, which knows the vocabulary, decides whether a marker is a token or plain text.

Rules are in llguidance's dialect of Lark: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Grammar:
    """Rules in Lark. ``start`` describes the whole answer.

    The rules may refer to ``marker_0``, the text of the first marker, and to ``until_0``, any text up to the end of the
    first occurrence of that marker; likewise for the other markers.
    """

    rules: str
    markers: tuple[str, ...] = ()
    is_simple: bool = False
    """Whether it certainly compiles within some milliseconds."""


@dataclass(frozen=True, slots=True)
class Preamble:
    """What an answer may contain before its constrained part: a thinking section, then the text ``prefix``.

    The section is ``opening``, any text, ``closing`` and ``resume``. It is optional unless the prompt has opened it
    (``opening`` is empty). Without ``closing`` there is no section.
    """

    opening: str = ""
    closing: str = ""
    resume: str = ""
    prefix: str = ""


NO_PREAMBLE = Preamble()


@dataclass(frozen=True, slots=True)
class CallFrame:
    """A tool call: the text before its arguments, the JSON Schema of the arguments, and the text after them."""

    before: str
    parameters: object
    after: str
