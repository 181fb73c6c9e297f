"""Inputs of a reranker: the tokens of a query with a document, one input for each document.

They are those of ``format_prompt_rerank`` in llama.cpp's ``tools/server/server-common.cpp``: the template ``rerank`` of
the model where it has one, else ``[BOS] query [EOS] [SEP] document [EOS]`` with the tokens that the model's tokenizer
adds. Differs: a document that does not fit the context is cut, where llama.cpp refuses the request, and a query with
``{document}`` in its text is not expanded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from corral_server.runner.chat.long_text import beginning
from corral_server.runner.engine.embedding import TOO_LONG
from corral_server.runner.engine.generation import Engine
from corral_server.wire.errors import ApiError

INPUT_TOKEN_BYTES = 36
"""A token of an input: its place in a list, and the integer."""

_PLACES = re.compile(r"\{(query|document)\}")


def rerank_inputs(
    engine: Engine, query: str, documents: Sequence[str], *, truncate: bool, reserve: Callable[[int], None]
) -> list[list[int]]:
    """Return the inputs; ``reserve`` is called with the bytes of each.

    CPU-bound. Raises ApiError 400 if the query leaves no room for a document, or without ``truncate`` if an input is
    longer than the context, and what ``reserve`` raises.
    """
    limit, template = engine.context_length, engine.rerank_template
    words = engine.tokenize(beginning(engine, query, limit), add_special=False, parse_special=False)
    if len(words) >= limit:
        raise _no_room(limit)
    inputs = []
    for document in documents:
        if template:
            tokens = _by_template(engine, template, query, document=document, truncate=truncate)
        else:
            tokens = _by_special_tokens(engine, words, document, truncate=truncate)
        reserve(INPUT_TOKEN_BYTES * len(tokens))
        inputs.append(tokens)
    return inputs


def _by_special_tokens(engine: Engine, query: list[int], document: str, *, truncate: bool) -> list[int]:
    special, limit = engine.special_tokens, engine.context_length
    eos = [special.eos if special.eos >= 0 else special.sep] * special.adds_eos
    before = [*[special.bos] * special.adds_bos, *query, *eos, *[special.sep] * special.adds_sep]
    words = engine.tokenize(beginning(engine, document, limit), add_special=False, parse_special=False)
    room = limit - len(before) - len(eos)
    if len(words) > room:
        _check_room(room, limit, truncate=truncate)
    return [*before, *words[:room], *eos]


def _by_template(engine: Engine, template: str, query: str, *, document: str, truncate: bool) -> list[int]:
    """Render and tokenize; cut a document that is too long and repeat, as a cut changes the tokens beside it."""
    limit = engine.context_length
    document = beginning(engine, document, limit)
    words = engine.tokenize(document, add_special=False, parse_special=False)
    kept, step = len(words), 1
    while True:
        text = _render(template, {"query": query, "document": document})
        tokens = engine.tokenize(text, add_special=False, parse_special=True)
        excess = len(tokens) - limit
        if excess <= 0:
            return tokens
        kept, step = kept - max(excess, step), 2 * step
        _check_room(kept, limit, truncate=truncate)
        document = engine.detokenize(words[:kept])


def _render(template: str, values: Mapping[str, str]) -> str:
    return _PLACES.sub(lambda place: values[place[1]], template)


def _check_room(room: int, limit: int, *, truncate: bool) -> None:
    """Raises ApiError 400 when an input that is too long cannot be cut to ``room`` tokens of its document."""
    if not truncate:
        raise ApiError(400, TOO_LONG)
    if room <= 0:
        raise _no_room(limit)


def _no_room(limit: int) -> ApiError:
    return ApiError(400, f"the query leaves no room for a document within the context of {limit} tokens")
