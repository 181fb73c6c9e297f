"""Compact JSON text, as Go's encoder writes it: UTF-8 without escapes beyond ASCII, no white space."""

from __future__ import annotations

import json


def compact_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
