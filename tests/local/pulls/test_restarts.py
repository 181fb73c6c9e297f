"""Starts with ``updatePolicy: OnRestart``: one update in each, whose failure holds no start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from corral_core.sources.snapshot import Snapshot, snapshot_id
from corral_server.local.pulls.source_restarts import SourceRestarts
from corral_server.pull.errors import TransientError
from tests.support.waiting import auntil

URI = "ollama://tiny"
OLD, NEW = (Snapshot(snapshot_id(URI, pin), URI, pin, ()) for pin in ("old", "new"))


@dataclass
class Updates:
    """Updates to ``found``, or ``error``. They are ``silent`` before the source is resolved, or wait for ``go_on``."""

    found: Snapshot = OLD
    error: Exception | None = None
    silent: bool = False
    known: Snapshot = OLD
    count: int = 0
    changes: int = 0
    failures: list[str] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def restarts(self, *, timeout: float = 30.0) -> SourceRestarts:
        return SourceRestarts(
            self._update,
            lambda _uri: self.known,
            failed=lambda _uri, reason: self.failures.append(reason),
            changed=self._changed,
            timeout=timeout,
        )

    async def _update(self, uri: str, resolved: Callable[[], None]) -> None:
        self.count += 1
        if self.error is not None:
            raise self.error
        if not self.silent:
            resolved()
        await self.go_on.wait()
        self.known = self.found

    def _changed(self) -> None:
        self.changes += 1


def held(restarts: SourceRestarts, snapshot: Snapshot = OLD, *, starting: bool = True) -> bool:
    return restarts.held("lab/tiny", {URI: snapshot.id}, starting=starting)


async def test_a_start_waits_for_one_update() -> None:
    updates = Updates()
    restarts = updates.restarts(timeout=0.01)
    assert held(restarts)
    await auntil(lambda: updates.count == 1)
    assert held(restarts), "a pull that has begun takes as long as it takes"
    updates.go_on.set()
    await auntil(lambda: updates.changes == 1)
    assert not held(restarts)
    assert updates.count == 1
    assert not held(restarts, starting=False)
    assert held(restarts), "the next start"
    await restarts.close()


async def test_a_start_waits_until_the_new_version_is_listed() -> None:
    updates = Updates(found=NEW)
    updates.go_on.set()
    restarts = updates.restarts()
    held(restarts)
    await auntil(lambda: updates.changes == 1)
    assert held(restarts, OLD)
    assert not held(restarts, NEW)


async def test_a_failed_update_is_reported_and_the_present_version_starts() -> None:
    updates = Updates(error=TransientError("no route"))
    restarts = updates.restarts()
    held(restarts)
    await auntil(lambda: updates.changes == 1)
    assert not held(restarts)
    assert updates.failures == ["no route"]


async def test_a_source_that_is_not_resolved_in_time_is_reported_and_the_present_version_starts() -> None:
    updates = Updates(silent=True)
    restarts = updates.restarts(timeout=0.01)
    held(restarts)
    await auntil(lambda: updates.changes == 1)
    assert not held(restarts)
    assert "not resolved within" in updates.failures[0]


async def test_a_start_that_is_not_wanted_any_more_ends_its_update() -> None:
    updates = Updates()
    restarts = updates.restarts()
    held(restarts)
    await auntil(lambda: updates.count == 1)
    assert not held(restarts, starting=False)
    updates.go_on.set()
    held(restarts)
    await auntil(lambda: updates.count == 2)
    await restarts.close()
