"""Schema of ``format`` (Ollama) and ``response_format`` (OpenAI)."""

from __future__ import annotations

import json
from itertools import islice

from corral_server.wire.errors import ApiError

_ENCODER = json.JSONEncoder(ensure_ascii=False)
"""Its ``iterencode`` encodes part by part, so the beginning of a large value takes little time."""


def answer_schema(response_format: object) -> dict[str, object] | None:
    """Return the JSON Schema of the answer; None when the request asks for no format.

    ``"json"`` is any object, as in Ollama (``llm/server.go``). Raises ApiError 500 with Ollama's text for what is
    neither ``"json"`` nor an object.
    """
    if response_format is None or response_format == "":
        return None
    if response_format == "json":
        return {"type": "object"}
    if isinstance(response_format, dict):
        return response_format
    start = "".join(islice(_ENCODER.iterencode(response_format), 200))[:200]
    quoted = json.dumps(start, ensure_ascii=False)
    raise ApiError(500, f'invalid format: {quoted}; expected "json" or a valid JSON Schema object')
