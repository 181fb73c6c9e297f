"""``format`` and ``response_format``: what the answer has to look like, as a grammar for the engine."""

from __future__ import annotations

import json

from corral_server.runner.grammar import JSON_GRAMMAR, schema_grammar
from corral_server.wire.errors import ApiError


def grammar_of(wanted: object) -> str | None:
    """GBNF for the native ``format``; None when nothing is asked for.

    Raises ApiError 500 with Ollama's text for what is neither ``"json"`` nor an object, and InvalidGrammar.
    """
    if wanted is None or wanted == "":
        return None
    if wanted == "json":
        return JSON_GRAMMAR
    if isinstance(wanted, dict):
        return schema_grammar(wanted)
    shown = json.dumps(json.dumps(wanted, ensure_ascii=False)[:200], ensure_ascii=False)
    raise ApiError(500, f'invalid format: {shown}; expected "json" or a valid JSON Schema object')
