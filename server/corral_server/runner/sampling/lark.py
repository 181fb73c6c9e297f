"""Writer of grammars for JSON values and tool calls.

Invariants:
- Every JSON value that a grammar allows is valid JSON.
- White space within a JSON value is one space, or a line break with at most 20 spaces, as in llama.cpp's
  ``common/json-schema-to-grammar.cpp``: small models repeat white space without end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from corral_server.runner.llama.errors import InvalidGrammar
from corral_server.runner.sampling.grammar import NO_PREAMBLE, CallFrame, Grammar, Preamble
from corral_server.runner.sampling.json_schema import SchemaBudget, prepare_schema

_MAX_CHARACTERS = 400_000
_SIMPLE_CHARACTERS = 40_000
_JSON_OPTIONS = {
    "whitespace_pattern": r" |\n[ \t]{0,20}",
    "coerce_one_of": True,
    "json_allow_general_unicode_escapes": True,
}
_BLANK = r"/[ \t\n]*/"


def json_grammar(schema: object, *, preamble: Preamble = NO_PREAMBLE, markers: Sequence[str] = ()) -> Grammar:
    """Return the grammar of a JSON value after a preamble. Raises InvalidGrammar if the schema is not one."""
    lark, budget = _Lark(markers), SchemaBudget()
    return lark.grammar(f"{lark.preamble(preamble)} {_json(schema, budget)}", is_simple=budget.is_simple)


def tool_call_grammar(frames: Sequence[CallFrame], *, preamble: Preamble, markers: Sequence[str]) -> Grammar:
    """Return the grammar of one call of one of several tools. Raises InvalidGrammar if a schema is not one."""
    lark, budget = _Lark(markers), SchemaBudget()
    names = [f"call_{index}" for index in range(len(frames))]
    rules = [
        f"{name}: {lark.literal(frame.before)} {_json(frame.parameters, budget)} {lark.literal(frame.after)}"
        for name, frame in zip(names, frames, strict=True)
    ]
    return lark.grammar(f"{lark.preamble(preamble)} ({' | '.join(names)})", *rules, is_simple=budget.is_simple)


def _json(schema: object, budget: SchemaBudget) -> str:
    try:
        text = json.dumps({**prepare_schema(schema, budget), "x-guidance": _JSON_OPTIONS}, allow_nan=False)
    except RecursionError:
        raise InvalidGrammar("the references of the JSON schema are nested too deep") from None
    except (ValueError, TypeError):
        raise InvalidGrammar("the JSON schema has a value that is not JSON") from None
    return f"%json {text}"


class _Lark:
    """Writes expressions that refer to markers."""

    def __init__(self, markers: Sequence[str]) -> None:
        self._markers = tuple(dict.fromkeys(markers))
        longest_first = sorted(self._markers, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, longest_first))})" if longest_first else "(?!)")

    def grammar(self, start: str, *rules: str, is_simple: bool) -> Grammar:
        text = "\n".join((f"start: {start}", *rules, ""))
        if len(text) > _MAX_CHARACTERS:
            raise InvalidGrammar("the JSON schema is too large")
        return Grammar(text, self._markers, is_simple and len(text) <= _SIMPLE_CHARACTERS)

    def literal(self, text: str) -> str:
        parts = (part for part in self._split.split(text) if part)
        return " ".join(f"marker_{self._markers.index(p)}" if p in self._markers else json.dumps(p) for p in parts)

    def preamble(self, preamble: Preamble) -> str:
        prefix = self.literal(preamble.prefix)
        if not preamble.closing:
            return prefix
        closing = f"until_{self._markers.index(preamble.closing)}"
        section = f"{self.literal(preamble.opening)} {closing} {self.literal(preamble.resume) or _BLANK}"
        return f"({section}){'?' if preamble.opening else ''} {prefix}"
