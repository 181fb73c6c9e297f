"""How many tokens an answer tells that it took, read from its last bytes in any of the wire formats."""

from __future__ import annotations

import re

TAIL = 4096
"""Bytes at the end of an answer in which they are looked for."""

# In a text that a model wrote every quotation mark is escaped, so these are the answer's own fields.
_PROMPT = re.compile(rb'[{,]\s?"(?:prompt_eval_count|prompt_tokens|input_tokens)":\s?(\d{1,12})')
_GENERATED = re.compile(rb'[{,]\s?"(?:eval_count|completion_tokens|output_tokens)":\s?(\d{1,12})')


def usage(tail: bytes) -> tuple[int | None, int | None]:
    """Tokens of the prompt, and generated ones; None for what the answer does not tell."""
    end = tail[-TAIL:]
    return _last(_PROMPT.findall(end)), _last(_GENERATED.findall(end))


def _last(found: list[bytes]) -> int | None:
    return int(found[-1]) if found else None
