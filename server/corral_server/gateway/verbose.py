"""A verbose ``/api/show``: the arrays and tensors of the weights, which only a runner has at hand.

A ready runner is asked, past its slots, and its answer goes on as it came. None is woken: without one, or where none
answers in time, the caller answers from what is stored, as it does for every other show.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from corral_server.gateway.apis import SHOW
from corral_server.gateway.body import go_kind
from corral_server.gateway.directory import Endpoint, Entry
from corral_server.gateway.pool import Pool
from corral_server.gateway.running import fetch
from corral_server.gateway.upstream import UpstreamError
from corral_server.wire.errors import ApiError
from corral_server.wire.headers import MODIFIED

TIMEOUT = 20.0
"""Seconds for one runner: a vocabulary of 250,000 tokens takes one on a slow machine."""
LIMIT = 128 << 20
"""Bytes of the answer; that vocabulary with its merges is 15 MB."""


def wants_verbose(data: Mapping[str, object]) -> bool:
    """Raises ApiError 400 for another value than a boolean."""
    value = data.get("verbose")
    if value is None or isinstance(value, bool):
        return value is True
    what = go_kind(value)
    raise ApiError(400, f"json: cannot unmarshal {what} into Go struct field {SHOW.kind}.verbose of type bool")


async def verbose_show(pool: Pool, entry: Entry, *, body: bytes, user_agent: bytes) -> bytes | None:
    """The answer of the first runner that gives one to the client's ``body``; None when none does."""
    head = (
        b"POST /api/show HTTP/1.1\r\nhost: runner\r\ncontent-length: %d\r\n" % len(body),
        b"%b: %.6f\r\nuser-agent: %b\r\n\r\n" % (MODIFIED, entry.modified, user_agent),
    )
    for endpoint in entry.endpoints:
        answer = await _ask(pool, endpoint, [*head, body])
        if answer is not None:
            return answer
    return None


async def _ask(pool: Pool, endpoint: Endpoint, message: list[bytes]) -> bytes | None:
    try:
        async with asyncio.timeout(TIMEOUT):
            status, body = await fetch(pool, endpoint, message, limit=LIMIT)
    except (UpstreamError, TimeoutError):
        return None
    return body if status == 200 and len(body) <= LIMIT else None
