"""Watch on the Model files: a change takes effect without a restart.

Every notification leads to a new read of all files. A periodic read covers lost notifications and weights that appear
after their Model. What this process writes itself is read at once (``Refresh``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Final

from pydantic.alias_generators import to_camel
from watchfiles import awatch

from corral_core.model.model import ModelSpec
from corral_server.local.event_log import EventLog
from corral_server.local.files import ModelFiles, ModelListing
from corral_server.local.runners.process import display_name

RESYNC = 5.0
"""Seconds between two reads without a notification."""

_CLUSTER_FIELDS: Final = {
    "proxy": "the network settings of the environment: HTTPS_PROXY, NO_PROXY, CORRAL_CA_BUNDLE",
    "source_secret_ref": "the credentials of the environment and of the home folder",
    "cache": "the store of this machine: ~/.cache/corral/models, or OLLAMA_MODELS",
}
"""Fields of a Model that have an effect on clusters only, and what is used in their place."""


class Refresh:
    """Asks the watch to read the files now. On the event loop only."""

    def __init__(self) -> None:
        self.wanted = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []

    def request(self) -> None:
        """Have the files read soon."""
        self.wanted.set()

    async def applied(self) -> None:
        """Have the files read, and wait until the result is applied."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self.request()
        await done

    def take(self) -> list[asyncio.Future[None]]:
        """Return the futures of those that wait for the read that begins now."""
        taken, self._waiting = self._waiting, []
        return taken


async def watch(
    files: ModelFiles,
    log: EventLog,
    apply: Callable[[ModelListing], None],
    *,
    last: ModelListing,
    resync: float = RESYNC,
    refresh: Refresh | None = None,
) -> None:
    """Call ``apply`` with every listing that differs from the last one; ``last`` is the one already applied.

    The files are read when they change, at the latest after ``resync`` seconds, and when ``refresh`` asks for it.
    """
    refresh = refresh or Refresh()
    triggers = _triggers(watched_folders(files.paths), log, resync)
    async with contextlib.aclosing(_with_wake(triggers, refresh.wanted)) as times:
        async for _ in times:
            waiting = refresh.take()
            listing = await asyncio.to_thread(files.read)
            if listing != last:
                log_changes(log, listing, last)
                apply(listing)
                last = listing
            for done in waiting:
                if not done.done():  # its caller may have been cancelled
                    done.set_result(None)


async def _with_wake(triggers: AsyncIterator[None], wake: asyncio.Event) -> AsyncGenerator[None]:
    """Yield at every trigger, and whenever ``wake`` is set, which is cleared."""
    trigger = asyncio.ensure_future(anext(triggers))
    woken = asyncio.create_task(wake.wait())
    try:
        while True:
            await asyncio.wait((trigger, woken), return_when=asyncio.FIRST_COMPLETED)
            if woken.done():
                wake.clear()
                woken = asyncio.create_task(wake.wait())
            if trigger.done():
                trigger.result()
                trigger = asyncio.ensure_future(anext(triggers))
            yield
    finally:
        trigger.cancel()
        woken.cancel()
        await asyncio.gather(trigger, woken, return_exceptions=True)


async def _triggers(folders: list[Path], log: EventLog, resync: float) -> AsyncIterator[None]:
    """Yield at every notification, and after ``resync`` seconds without one."""
    pause = int(resync * 1000)
    try:
        async for _ in awatch(*folders, recursive=False, rust_timeout=pause, yield_on_timeout=True, step=20):
            yield
    except OSError as error:  # the limit of inotify watches is reached, or the file system has none
        log.problem("watch_lost", reason=str(error), meaning=f"files are read every {resync:g} s instead")
    while True:
        await asyncio.sleep(resync)
        yield


def watched_folders(paths: Iterable[Path]) -> list[Path]:
    """Return the folders to watch; for a file its folder, because editors replace the file."""
    folders = (path if path.is_dir() else path.parent for path in paths)
    return list(dict.fromkeys(folder for folder in folders if folder.is_dir()))


def log_changes(log: EventLog, listing: ModelListing, last: ModelListing | None) -> None:
    """Log the changes: problems of files and weights, Models added, changed and removed, fields without effect."""
    for path, problem in listing.problems.items():
        if last is None or last.problems.get(path) != problem:
            log.problem("file_rejected", file=str(path), problem=problem)
    before = {listed.model.key: listed for listed in last.models} if last else {}
    for listed in listing.models:
        known = before.pop(listed.model.key, None)
        name = display_name(listed.model)
        if known is None or known.model.spec != listed.model.spec:
            what = "model_added" if known is None else "model_changed"
            log.event(what, name, source=listed.model.spec.source, names=list(listed.names))
            _log_unused_fields(log, name, listed.model.spec, before=known.model.spec if known is not None else None)
        if listed.weights.problem and (known is None or known.weights != listed.weights):
            log.problem("weights_rejected", name, problem=listed.weights.problem)
    for listed in before.values():
        log.event("model_removed", display_name(listed.model))


def _log_unused_fields(log: EventLog, name: str, spec: ModelSpec, *, before: ModelSpec | None) -> None:
    """Log each field that only clusters use, unless it is the same ``before``."""
    for field, instead in _CLUSTER_FIELDS.items():
        value = getattr(spec, field)
        if value != ModelSpec.model_fields[field].default and (before is None or value != getattr(before, field)):
            log.event("field_unused", name, field=f"spec.{to_camel(field)}", used=instead)
