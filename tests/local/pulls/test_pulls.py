"""Pulls in the background: attempts, what is wanted, and their end, with pullers that the test directs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from corral_core.base.errors import SourceError
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.sources.snapshot import FileRole, Snapshot, snapshot_id
from corral_server.local.pulls import pulls as pulls_module
from corral_server.local.pulls.pulls import PARALLEL, LocalPulls
from corral_server.local.pulls.source_polls import SourcePolls
from corral_server.pull.errors import ContentError, PullCancelled, TransientError
from corral_server.pull.progress import PullProgress, PullStage
from corral_server.pull.remote_files import HttpLocation, RemoteFile, ResolvedSource
from tests.support.waiting import auntil

URI = "ollama://tiny"


def snapshot(uri: str, pin: str = "1") -> Snapshot:
    return Snapshot(snapshot_id(uri, pin), uri, pin, ())


@dataclass
class Pullers:
    """Makes pullers: each attempt ends with the next of ``outcomes``, success after the last, once ``go_on`` is set."""

    outcomes: list[Exception] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    attempts: list[str] = field(default_factory=list)
    running: int = 0
    most: int = 0
    version: str = "1"
    cancelled: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def make(self, cancel: threading.Event) -> _Puller:
        return _Puller(self, cancel)


@dataclass
class _Puller:
    owner: Pullers
    cancel: threading.Event

    def pull(
        self,
        uri: str,
        *,
        pin: str = "",
        progress: Callable[[PullProgress], None],
        found: Callable[[ResolvedSource, ModelMetadata | None], None],
    ) -> Snapshot:
        owner = self.owner
        with owner.lock:
            owner.attempts.append(f"{uri}@{pin}" if pin else uri)
            owner.running += 1
            owner.most = max(owner.most, owner.running)
            outcome = owner.outcomes.pop(0) if owner.outcomes else None
        try:
            file = RemoteFile("m.gguf", FileRole.WEIGHTS, HttpLocation(""), size=100, sha256="ab" * 32)
            found(ResolvedSource(uri, "1", (file,)), None)
            if outcome is not None:
                raise outcome
            progress(PullProgress(100, 40, 1.0, "m.gguf", PullStage.PULLING))
            while not owner.go_on.wait(0.01):
                if self.cancel.is_set():
                    owner.cancelled += 1
                    raise PullCancelled("cancelled")
            return snapshot(uri, owner.version)
        finally:
            with owner.lock:
                owner.running -= 1


@dataclass
class Observed:
    """Listener that records the events."""

    events: list[tuple[str, str]] = field(default_factory=list)

    def started(self, uri: str) -> None:
        self.events.append(("started", uri))

    def progressed(self, uri: str, progress: PullProgress) -> None:
        self.events.append(("progressed", uri))

    def pulled(self, uri: str, snapshot: Snapshot, seconds: float) -> None:
        self.events.append(("pulled", uri))

    def failed(self, uri: str, error: str, pause: float) -> None:
        self.events.append(("failed", error))


def local_pulls(pullers: Pullers, observed: Observed, changed: list[str] | None = None) -> LocalPulls:
    record = (changed if changed is not None else []).append
    return LocalPulls(pullers.make, {}, observed, record, first_pause=0.01)


async def test_progress_is_shown_until_the_source_is_pulled() -> None:
    pullers, changed = Pullers(), list[str]()
    pulls = local_pulls(pullers, Observed(), changed)
    pulls.want({URI})
    await auntil(lambda: (state := pulls.state(URI)) and state.files and state.files[0].completed == 40)
    assert pulls.snapshot(URI) is None
    pullers.go_on.set()
    await auntil(lambda: pulls.snapshot(URI))
    assert pulls.state(URI) is None
    assert changed[-1] == URI
    pulls.want({URI})
    assert pullers.attempts == [URI], "a pulled source is not pulled again"


async def test_a_failed_pull_is_reported_and_tried_again() -> None:
    pullers, observed = Pullers([TransientError("no route"), SourceError("no such tag"), ValueError("bug")]), Observed()
    pulls = local_pulls(pullers, observed)
    pulls.want({URI})
    problems: set[str] = set()
    pullers.go_on.set()

    def over() -> bool:
        state = pulls.state(URI)
        if state is not None and state.problem is not None:
            problems.add(state.problem)
        return pulls.snapshot(URI) is not None

    await auntil(over)
    failures = [text for kind, text in observed.events if kind == "failed"]
    assert failures == ["no route", "no such tag", "the pull failed: ValueError('bug')"]


async def test_wrong_content_is_reported_once_and_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process, such as ``corral pull``, may have pulled it meanwhile."""
    monkeypatch.setattr(pulls_module, "LONGEST_PAUSE", 0.01)
    pullers, observed = Pullers([ContentError("wrong, until noon", retry_after=36_000.0)] * 3), Observed()
    pulls = local_pulls(pullers, observed)
    pulls.want({URI})
    await auntil(lambda: (state := pulls.state(URI)) and state.problem)
    state = pulls.state(URI)
    assert state is not None
    assert state.problem == "wrong, until noon"
    pullers.go_on.set()
    await auntil(lambda: pulls.snapshot(URI))
    assert len(pullers.attempts) == 4
    reported = [event for event in observed.events if event[0] in ("started", "failed")]
    assert reported == [("started", URI), ("failed", "wrong, until noon")]


async def test_a_source_that_is_not_wanted_any_more_is_cancelled() -> None:
    pullers = Pullers()
    pulls = local_pulls(pullers, Observed())
    pulls.want({URI})
    await auntil(lambda: pullers.running == 1)
    pulls.want(())
    await auntil(lambda: pullers.cancelled == 1)
    assert (pulls.state(URI), pulls.snapshot(URI)) == (None, None)
    pulls.want({URI})
    pullers.go_on.set()
    await auntil(lambda: pulls.snapshot(URI))


async def test_a_source_whose_files_are_gone_is_pulled_again_at_its_pin() -> None:
    pullers, complete = Pullers(), [True]
    pullers.go_on.set()
    pulls = LocalPulls(pullers.make, {}, Observed(), lambda _uri: None, complete=lambda _snapshot: complete[0])
    pulls.want({URI})
    await auntil(lambda: pulls.snapshot(URI))
    complete[0] = False
    assert pulls.snapshot(URI) is None
    complete[0] = True
    pulls.want({URI})
    await auntil(lambda: pulls.snapshot(URI))
    assert pullers.attempts == [URI, f"{URI}@1"]


async def test_a_poll_pulls_a_new_version_and_reports_failures() -> None:
    pullers, changed, failures = Pullers(version="2"), list[str](), list[str]()
    pullers.go_on.set()
    pulls = LocalPulls(pullers.make, {URI: snapshot(URI)}, Observed(), changed.append)
    polls = SourcePolls(pulls.update, lambda _uri, reason, _seconds: failures.append(reason))
    polls.set({URI: 0.02})
    await auntil(lambda: (found := pulls.snapshot(URI)) and found.pin == "2")
    assert changed == [URI]
    assert set(pullers.attempts) == {URI}, "without a pin"
    pullers.outcomes = [TransientError("no route")]
    await auntil(lambda: failures)
    assert failures == ["no route"]
    assert (present := pulls.snapshot(URI)) is not None
    assert present.pin == "2", "it is served on"
    polls.set({})
    before = len(pullers.attempts)
    polls.set({URI: 3600.0}, at_once=True)
    await auntil(lambda: len(pullers.attempts) > before)
    await polls.close()


async def test_few_sources_are_pulled_at_a_time_and_the_end_waits_for_none() -> None:
    pullers = Pullers()
    pulls = local_pulls(pullers, Observed())
    pulls.want([f"{URI}:{number}" for number in range(2 * PARALLEL)])
    await auntil(lambda: pullers.running == PARALLEL)
    assert len(pullers.attempts) == PARALLEL
    await pulls.close()
    await auntil(lambda: pullers.running == 0)
    assert pullers.most == PARALLEL
