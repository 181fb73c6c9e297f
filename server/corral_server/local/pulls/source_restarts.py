"""Starts of Models with ``updatePolicy: OnRestart``: their sources are resolved again before a runner starts.

- Each source is resolved once in a start, which lasts from when a runner is wanted until one is there.
- A new version is pulled first. If that fails, or the source is not resolved in time, the present version starts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping

from corral_core.base.errors import CorralError
from corral_core.sources.snapshot import Snapshot
from corral_server.pull.errors import PullCancelled

RESOLVE_TIMEOUT = 30.0
"""Seconds that a start waits until a source is resolved."""


class SourceRestarts:
    """``update(uri, found)`` pulls the version that a source has now, and calls ``found`` when it is resolved.

    ``pulled`` returns what a source was pulled as. ``failed(uri, reason)`` reports a failure, and ``changed`` is called
    when the sources of a start are up to date. Used on one event loop.
    """

    def __init__(
        self,
        update: Callable[[str, Callable[[], None]], Awaitable[None]],
        pulled: Callable[[str], Snapshot | None],
        *,
        failed: Callable[[str, str], None],
        changed: Callable[[], None],
        timeout: float = RESOLVE_TIMEOUT,
    ) -> None:
        self._update = update
        self._pulled = pulled
        self._failed = failed
        self._changed = changed
        self._timeout = timeout
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def held(self, model: str, snapshots: Mapping[str, str], *, starting: bool) -> bool:
        """Return whether the start of a Model, with these snapshots by source, waits for its sources."""
        if not starting:
            if (ended := self._tasks.pop(model, None)) is not None:
                ended.cancel()
            return False
        if model not in self._tasks:
            self._tasks[model] = asyncio.create_task(self._update_all(tuple(snapshots)), name=f"restart {model}")
        if not self._tasks[model].done():
            return True
        found = ((self._pulled(uri), id) for uri, id in snapshots.items())
        return any(snapshot is None or snapshot.id != id for snapshot, id in found)

    async def close(self) -> None:
        """End all updates."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _update_all(self, uris: Collection[str]) -> None:
        for uri in uris:
            limit = asyncio.timeout(self._timeout)

            def resolved(limit: asyncio.Timeout = limit) -> None:
                with contextlib.suppress(RuntimeError):  # the timeout is over already
                    limit.reschedule(None)

            try:
                async with limit:
                    await self._update(uri, resolved)
            except PullCancelled:
                break
            except Exception as error:  # of any kind: the present version starts
                silent = f"the source was not resolved within {self._timeout:.0f} s"
                other = str(error) if isinstance(error, CorralError) else f"the update failed: {error!r}"
                self._failed(uri, silent if limit.expired() else other)
        asyncio.get_running_loop().call_soon(self._changed)
