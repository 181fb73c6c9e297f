"""Pulls of local mode: every source that a Model needs is pulled in the background, in one thread each.

Invariants:

- At most ``PARALLEL`` sources are pulled at a time; a download has several connections of its own.
- A failed pull is reported and tried again after a pause that doubles; what has arrived stays in the store.
- Content that was wrong is reported once. The store says when it is downloaded again; until then the attempts only look
  whether another process has pulled it.
- A source that no Model needs any more is not pulled to its end.
- A pulled source whose files were removed from the store is pulled again, in the same version.
- The threads are daemons: the process can end at any moment, and the next one continues.
- ``snapshot`` may be called from any thread, everything else on the event loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from corral_core.base.errors import CorralError
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.sources.snapshot import Snapshot
from corral_server.gateway.directory.directory import PullingFile
from corral_server.local.pulls.file_progress import pulling_files
from corral_server.pull.errors import ContentError, PullCancelled
from corral_server.pull.progress import PullProgress, PullStage
from corral_server.pull.remote_files import ResolvedSource

PARALLEL = 2
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0
"""Seconds until a failed pull is tried again: after the first failure, and at most."""
CLOSE_TIMEOUT = 3.0
"""Seconds that the threads have at the end."""
NOTIFY_INTERVAL = 0.25
"""Seconds between two notifications of the progress of one pull."""

T = TypeVar("T")


class SourcePuller(Protocol):
    """``pull.puller.Puller``."""

    def pull(
        self,
        uri: str,
        *,
        pin: str = "",
        progress: Callable[[PullProgress], None],
        found: Callable[[ResolvedSource, ModelMetadata | None], None],
    ) -> Snapshot: ...


class PullListener(Protocol):
    """Receives the events of pulls, on the event loop."""

    def started(self, uri: str) -> None: ...

    def progressed(self, uri: str, progress: PullProgress) -> None: ...

    def pulled(self, uri: str, snapshot: Snapshot, seconds: float) -> None: ...

    def failed(self, uri: str, error: str, pause: float) -> None: ...


@dataclass(frozen=True, slots=True)
class PullState:
    """A source that is not pulled yet. ``problem`` is why the last attempt failed, None while there is hope.

    ``retry`` is the pause in seconds between that and the next attempt, None where the store decides it.
    """

    resolved: ResolvedSource | None = None
    metadata: ModelMetadata | None = None
    progress: PullProgress = field(default_factory=lambda: PullProgress(None, 0, 0.0, "", PullStage.RESOLVING))
    problem: str | None = None
    retry: float | None = None

    @property
    def files(self) -> tuple[PullingFile, ...]:
        return pulling_files(self.resolved.files, self.progress.completed) if self.resolved is not None else ()


class LocalPulls:
    """``changed(uri)`` is called on the event loop after every change of what ``state`` and ``snapshot`` return.

    ``complete`` returns whether the store still has all files of a snapshot.
    """

    def __init__(
        self,
        make_puller: Callable[[threading.Event], SourcePuller],
        known: Mapping[str, Snapshot],
        listener: PullListener,
        changed: Callable[[str], None],
        *,
        complete: Callable[[Snapshot], bool] = lambda _snapshot: True,
        first_pause: float = FIRST_PAUSE,
    ) -> None:
        self._make_puller = make_puller
        self._snapshots = dict(known)
        self._listener = listener
        self._changed = changed
        self._complete = complete
        self._pins: dict[str, str] = {}
        self._threads: set[threading.Thread] = set()
        self._first_pause = first_pause
        self._states: dict[str, PullState] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(PARALLEL)
        self._notified: dict[str, float] = {}

    def snapshot(self, uri: str) -> Snapshot | None:
        """Return what the source was pulled as, None if it is not pulled or its files are gone."""
        found = self._snapshots.get(uri)
        if found is None or self._complete(found):
            return found
        self._pins[uri] = found.pin
        self._snapshots.pop(uri, None)
        return None

    def forget(self, uri: str) -> Snapshot | None:
        """Forget what a source was pulled as, and return it: when the source is wanted again, it is resolved again."""
        self._pins.pop(uri, None)
        return self._snapshots.pop(uri, None)

    def state(self, uri: str) -> PullState | None:
        """Return the state of a source that is wanted and not pulled yet."""
        return self._states.get(uri)

    def want(self, uris: Collection[str]) -> None:
        """Pull these sources, and no others any more."""
        for uri in [uri for uri in self._tasks if uri not in uris]:
            self._tasks.pop(uri).cancel()
            self._states.pop(uri, None)
        for uri in uris:
            if uri not in self._tasks and uri not in self._snapshots:
                self._states[uri] = PullState()
                self._tasks[uri] = asyncio.create_task(self._pull(uri), name=f"pull {uri[:100]}")
                self._changed(uri)

    async def close(self) -> None:
        """End all pulls. What has arrived stays in the store; the threads get some time to note it there."""
        tasks = list(self._tasks.values())
        self.want(())
        await asyncio.gather(*tasks, return_exceptions=True)
        deadline = time.monotonic() + CLOSE_TIMEOUT
        while self._threads and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
            self._threads = {thread for thread in self._threads if thread.is_alive()}

    async def _pull(self, uri: str) -> None:
        """Try until the source is pulled."""
        pause, reported = self._first_pause, ""
        while True:
            try:
                async with self._places:
                    if not reported:
                        self._listener.started(uri)
                    start = time.monotonic()
                    snapshot = await self._in_thread(uri, self._pins.get(uri, ""))
            except PullCancelled:
                return
            except Exception as error:  # of any kind: the other Models are served, and it is tried again
                wait = max(pause, getattr(error, "retry_after", None) or 0.0)
                problem = str(error) if isinstance(error, CorralError) else f"the pull failed: {error!r}"
                wrong = isinstance(error, ContentError)
                self._states[uri] = replace(self._states[uri], problem=problem, retry=None if wrong else wait)
                if problem != reported:
                    self._listener.failed(uri, problem, wait)
                reported = problem if wrong else ""
                self._changed(uri)
                await asyncio.sleep(min(wait, LONGEST_PAUSE) if wrong else wait)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._snapshots[uri] = snapshot
                del self._tasks[uri], self._states[uri]
                self._listener.pulled(uri, snapshot, time.monotonic() - start)
                self._changed(uri)
                return

    async def update(self, uri: str, resolved: Callable[[], None] | None = None) -> None:
        """Pull the version that a pulled source has now; ``snapshot`` returns the earlier one until then.

        ``resolved`` is called when it is known. Raises what the puller raises.
        """
        if uri not in self._snapshots:
            return
        start = time.monotonic()
        async with self._places:
            snapshot = await self._in_thread(uri, "", resolved)
        known = self._snapshots.get(uri)
        if known is not None and known.id != snapshot.id:
            self._snapshots[uri] = snapshot
            self._pins.pop(uri, None)
            self._listener.pulled(uri, snapshot, time.monotonic() - start)
            self._changed(uri)

    async def _in_thread(self, uri: str, pin: str, on_resolved: Callable[[], None] | None = None) -> Snapshot:
        """Pull in a daemon thread. Cancellation sets the puller's event and does not wait for the thread."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Snapshot] = loop.create_future()
        cancel = threading.Event()

        def report(progress: PullProgress) -> None:
            _call(loop, lambda: self._progressed(uri, progress))

        def found(resolved: ResolvedSource, metadata: ModelMetadata | None) -> None:
            _call(loop, lambda: self._found(uri, resolved, metadata=metadata))
            if on_resolved is not None:
                _call(loop, on_resolved)

        def run() -> None:
            try:
                snapshot = self._make_puller(cancel).pull(uri, pin=pin, progress=report, found=found)
            except BaseException as error:
                failure = error
                _call(loop, lambda: None if done.cancelled() else done.set_exception(failure))
            else:
                _call(loop, lambda: None if done.cancelled() else done.set_result(snapshot))

        thread = threading.Thread(target=run, name=f"pull {uri[:100]}", daemon=True)
        self._threads = {known for known in self._threads if known.is_alive()} | {thread}
        thread.start()
        try:
            return await done
        finally:
            cancel.set()

    def _found(self, uri: str, resolved: ResolvedSource, *, metadata: ModelMetadata | None) -> None:
        if uri in self._states:
            self._states[uri] = PullState(resolved, metadata)
            self._changed(uri)

    def _progressed(self, uri: str, progress: PullProgress) -> None:
        state, now = self._states.get(uri), time.monotonic()
        if state is None:
            return
        self._states[uri] = replace(state, progress=progress, problem=None if progress.completed else state.problem)
        if now - self._notified.get(uri, 0.0) >= NOTIFY_INTERVAL:
            self._notified[uri] = now
            self._listener.progressed(uri, progress)
            self._changed(uri)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    """Call on the event loop, if it still runs."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        return
