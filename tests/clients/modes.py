"""One client call in each of four modes: synchronous or asynchronous, whole or streamed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
Ask = Callable[[Any, bool], Any]
"""A call of a client's method; synchronous and asynchronous clients have no common type."""


@dataclass(frozen=True, slots=True)
class Mode:
    asynchronous: bool
    stream: bool

    def __str__(self) -> str:
        return f"{'async' if self.asynchronous else 'sync'}-{'stream' if self.stream else 'whole'}"


MODES = tuple(Mode(*ways) for ways in itertools.product((False, True), repeat=2))
every_mode = pytest.mark.parametrize("mode", MODES, ids=str)
sync_and_async = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


def parts(
    mode: Mode, kind: type[T], client: object, other: Callable[[], AbstractAsyncContextManager[Any]], ask: Ask
) -> Sequence[T]:
    """Return the parts of the stream that ``ask(client, stream)`` returns, or the whole response in a list.

    Each part must be a ``kind``. ``other`` creates an asynchronous client for one call.
    """
    if mode.asynchronous:
        found = asyncio.run(_awaited(mode, other, ask))
    else:
        answer = ask(client, mode.stream)
        found = list(answer) if mode.stream else [answer]
    assert all(isinstance(part, kind) for part in found)
    return found


async def _awaited(mode: Mode, other: Callable[[], AbstractAsyncContextManager[Any]], ask: Ask) -> list[Any]:
    async with other() as client:
        answer = await ask(client, mode.stream)
        return [part async for part in answer] if mode.stream else [answer]


def answer(
    asynchronous: bool, client: object, other: Callable[[], AbstractAsyncContextManager[Any]], ask: Callable[[Any], Any]
) -> Any:
    """Return the result of ``ask`` with a synchronous or asynchronous client."""

    async def awaited() -> Any:
        async with other() as client:
            return await ask(client)

    return asyncio.run(awaited()) if asynchronous else ask(client)
