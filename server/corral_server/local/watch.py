"""Watches the Model files: whatever changes takes effect without a restart.

A notification only says that something changed; then every file is looked at again. The same happens every few seconds
without one, so that a lost notification and weights that appear later do no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

from watchfiles import awatch

from corral_server.local.child import label
from corral_server.local.files import Listing, ModelFiles
from corral_server.local.logs import EventLog

RESYNC = 5.0
"""Seconds between two looks when nothing is said to have changed."""


async def watch(
    files: ModelFiles, log: EventLog, apply: Callable[[Listing], None], *, last: Listing, resync: float = RESYNC
) -> None:
    """Calls ``apply`` with every listing that differs from the one before; ``last`` is the one already applied."""
    async for _ in _looks(watched(files.paths), log, resync):
        listing = await asyncio.to_thread(files.read)
        if listing != last:
            report(log, listing, last)
            apply(listing)
            last = listing


async def _looks(folders: list[Path], log: EventLog, resync: float) -> AsyncIterator[None]:
    """One item whenever it is time to look: at a notification, and after ``resync`` seconds without one."""
    pause = int(resync * 1000)
    try:
        async for _ in awatch(*folders, recursive=False, rust_timeout=pause, yield_on_timeout=True, step=20):
            yield
    except OSError as error:  # the system's limit of watches, or a file system without them
        log.problem("watch-lost", reason=str(error), meaning=f"files are looked at every {resync:g} s")
    while True:
        await asyncio.sleep(resync)
        yield


def watched(paths: Iterable[Path]) -> list[Path]:
    """The folders to watch: of a file its folder, because editors put a new file in its place."""
    folders = (path if path.is_dir() else path.parent for path in paths)
    return list(dict.fromkeys(folder for folder in folders if folder.is_dir()))


def report(log: EventLog, listing: Listing, last: Listing | None) -> None:
    """Logs what changed: problems of files and weights, Models that came, changed and went."""
    for path, problem in listing.problems.items():
        if last is None or last.problems.get(path) != problem:
            log.problem("file-refused", file=str(path), problem=problem)
    before = {listed.model.key: listed for listed in last.models} if last else {}
    for listed in listing.models:
        known = before.pop(listed.model.key, None)
        name = label(listed.model)
        if known is None or known.model.spec != listed.model.spec:
            what = "model-added" if known is None else "model-changed"
            log.event(what, name, source=listed.model.spec.source, names=list(listed.names))
        if listed.weights.problem and (known is None or known.weights != listed.weights):
            log.problem("weights-refused", name, problem=listed.weights.problem)
    for listed in before.values():
        log.event("model-removed", label(listed.model))
