"""Endpoints ``/tokenize`` and ``/detokenize``, as in llama.cpp's ``tools/server/server-context.cpp``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from corral_server.runner.api.request_body import RequestFields, read_fields
from corral_server.runner.api.response import JSON_CONTENT_TYPE
from corral_server.runner.api.shared_fields import TOKENIZED_BYTE, optional_model_name
from corral_server.runner.engine.generation import Engine
from corral_server.runner.lifecycle.state import RunnerState
from corral_server.runner.memory.budget import current_reservation
from corral_server.wire.errors import ApiError
from corral_server.wire.json_encoding import compact_json

TOKENIZE, DETOKENIZE = "/tokenize", "/detokenize"

PIECE_BYTES = 600
"""A token with its text: the object, the text and both as JSON."""

_UNKNOWN = "a token is not in the model's vocabulary"


class TokenEndpoints:
    """Both endpoints of one runner. They take no slot and generate nothing."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def tokenize(self, request: Request) -> Response:
        fields = await read_fields(request, "TokenizeRequest", package="llama")
        optional_model_name(fields, self._state)
        parts, with_pieces = _content(fields), fields.boolean("with_pieces") or False
        tokenize = partial(
            _tokenize,
            parts=parts,
            add_special=fields.boolean("add_special") or False,
            parse_special=fields.boolean("parse_special") is not False,
        )
        with self._state.active_request(None) as loaded:
            current_reservation().grow(TOKENIZED_BYTE * sum(len(part) for part in parts if isinstance(part, str)))
            tokens = await asyncio.to_thread(tokenize, loaded.engine)
            if with_pieces:
                current_reservation().grow(PIECE_BYTES * len(tokens))
            return await asyncio.to_thread(_tokens_response, loaded.engine, tokens, with_pieces=with_pieces)

    async def detokenize(self, request: Request) -> Response:
        fields = await read_fields(request, "DetokenizeRequest", package="llama")
        optional_model_name(fields, self._state)
        tokens = fields.integers("tokens")
        with self._state.active_request(None) as loaded:
            current_reservation().grow(TOKENIZED_BYTE * len(tokens))
            try:
                content = await asyncio.to_thread(loaded.engine.detokenize, tokens)
            except ValueError:
                raise ApiError(400, _UNKNOWN) from None
        return _response({"content": content})


def _content(fields: RequestFields) -> list[str | int]:
    """Return the texts and tokens of ``content``: one text, or an array of both. Raises ApiError 400."""
    value = fields.value("content")
    items = value if isinstance(value, list) else [] if value is None else [value]
    parts = [item for item in items if isinstance(item, str | int) and not isinstance(item, bool)]
    if len(parts) != len(items) or isinstance(value, int):
        raise ApiError(400, '"content" must be a string or an array of strings and tokens')
    return parts


def _tokenize(engine: Engine, parts: Sequence[str | int], *, add_special: bool, parse_special: bool) -> list[int]:
    """Return the tokens of all parts. Special tokens are added to the first part only (``tokenize_mixed``)."""
    tokens: list[int] = []
    for index, part in enumerate(parts):
        if isinstance(part, int):
            tokens.append(part)
        else:
            tokens += engine.tokenize(part, add_special=add_special and index == 0, parse_special=parse_special)
    return tokens


def _tokens_response(engine: Engine, tokens: list[int], *, with_pieces: bool) -> Response:
    """Raises ApiError 400 for a token without a piece."""
    if not with_pieces:
        return _response({"tokens": tokens})
    try:
        return _response({"tokens": [{"id": token, "piece": _piece(engine.token_bytes(token))} for token in tokens]})
    except ValueError:
        raise ApiError(400, _UNKNOWN) from None


def _piece(data: bytes) -> str | list[int]:
    """Return the text of a token, its bytes where they are only a part of a character."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


def _response(body: object) -> Response:
    return Response(compact_json(body), media_type=JSON_CONTENT_TYPE.decode())
