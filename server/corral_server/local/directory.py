"""Directory of the gateway in local mode: Models from files, runners from the supervisor, demand for the planner.

The directory holds Models and demand. It asks the supervisor for endpoints every time, so it holds no copy of them.
An entry is cached until one of its inputs changes.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.model.name_index import EVERYWHERE, NameIndex, Scope, lost_names_message
from corral_core.planning.snapshot import Decision, Demand, Replica
from corral_server.gateway.directory.directory import Endpoint, FoundModel, ModelEntry, ObservedState, PullingFile
from corral_server.local.event_log import EventLog
from corral_server.local.files import ListedModel
from corral_server.local.runners.process import display_name


class Runners(Protocol):
    """The part of the supervisor that the directory uses."""

    def endpoints(self, key: str) -> tuple[Endpoint, ...]: ...

    def context_length(self, key: str) -> int: ...

    def failure(self, key: str) -> str | None: ...

    def replicas(self, key: str) -> tuple[Replica, ...]: ...


class SourcePull(Protocol):
    """The state of a source that is being pulled (``pulls.pulls.PullState``)."""

    @property
    def files(self) -> tuple[PullingFile, ...]: ...

    @property
    def metadata(self) -> ModelMetadata | None: ...

    @property
    def problem(self) -> str | None: ...

    @property
    def retry(self) -> float | None: ...


def no_pulls(_uri: str) -> SourcePull | None:
    """Return no state: nothing is pulled."""
    return None


class LocalDirectory:
    """``request_plan`` is called after every change that can change the plan.

    ``pull`` returns the state of a source that is being pulled.
    """

    def __init__(
        self,
        runners: Runners,
        log: EventLog,
        request_plan: Callable[[], None],
        *,
        pull: Callable[[str], SourcePull | None] = no_pulls,
    ) -> None:
        self._runners = runners
        self._pull = pull
        self._log = log
        self._request_plan = request_plan
        self._listed: dict[str, ListedModel] = {}
        self._names = NameIndex()
        self._lost: dict[str, str] = {}
        self._entries: dict[str, ModelEntry] = {}
        self._demand: dict[str, Demand] = {}
        self._wanted_pulls: set[str] = set()
        self._wanted_contexts: dict[str, int] = {}
        self._contexts: dict[str, tuple[int, int]] = {}
        self._decisions: dict[str, Decision] = {}
        self._draining: set[str] = set()
        self._interrupted: set[str] = set()
        self._cold_demand: set[str] = set()
        self._subscribers: list[Callable[[str], None]] = []
        self._synced = False

    # For the gateway

    def find(self, name: str, scope: Scope = EVERYWHERE) -> FoundModel | None:
        found = self._names.find(name, scope)
        entry = self.get(found.key) if found is not None else None
        return FoundModel(entry, found.name) if found is not None and entry is not None else None

    def sees(self, scope: Scope, namespace: str) -> bool:
        return self._names.sees(scope, namespace)

    def displayed_names(self, key: str, scope: Scope) -> tuple[str, ...]:
        return self._names.displayed_names(key, scope)

    def get(self, key: str) -> ModelEntry | None:
        listed = self._listed.get(key)
        if listed is None:
            return None
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = self._entry(listed)
        return entry

    def observed(self, key: str) -> ObservedState | None:
        entry = self.get(key)
        if entry is None:
            return None
        staying = [replica for replica in self._runners.replicas(key) if not replica.terminating]
        decision = self._decisions.get(key)
        ready = len(entry.endpoints)
        return ObservedState(
            phase=_phase(entry, decision, starting=len(staying) > ready, draining=key in self._draining),
            reason=entry.unavailable_reason or (decision.reason if decision is not None else ""),
            replicas=len(staying),
            ready=ready,
            nodes=(socket.gethostname(),) if ready else (),
        )

    def entries(self) -> Sequence[ModelEntry]:
        return sorted(filter(None, map(self.get, self._listed)), key=lambda entry: entry.modified, reverse=True)

    def subscribe(self, changed: Callable[[str], None]) -> None:
        self._subscribers.append(changed)

    def report_demand(self, key: str, pending: int, oldest: float | None) -> None:
        before = self._demand.pop(key, None)
        if pending > 0 and oldest is not None:
            self._demand[key] = Demand(pending, oldest)
        if (before is None) != (key not in self._demand):
            self._log_demand(key, pending, oldest)
        self._request_plan()

    def want_context(self, key: str, length: int) -> None:
        self._wanted_contexts[key] = length
        if not length:
            del self._wanted_contexts[key]
        self._request_plan()

    def want_pull(self, key: str, wanted: bool) -> None:
        (self._wanted_pulls.add if wanted else self._wanted_pulls.discard)(key)
        self._request_plan()

    def synced(self) -> bool:
        return self._synced

    def _log_demand(self, key: str, pending: int, oldest: float | None) -> None:
        """Log when demand for a cold model begins and ends; waiting for a slot of a loaded one is not logged."""
        entry = self.get(key)
        if pending and entry is not None and not entry.endpoints:
            self._cold_demand.add(key)
        if key in self._cold_demand:
            self._log.event("demand", self._display_name(key), pending=pending, oldest=oldest)
        if not pending:
            self._cold_demand.discard(key)

    # For the planner

    def replace(self, models: Sequence[ListedModel]) -> None:
        """Replace all Models."""
        before = self._listed
        self._listed = {listed.model.key: listed for listed in models}
        self._decisions = {key: known for key, known in self._decisions.items() if key in self._listed}
        self._names = NameIndex()
        for listed in models:
            self._names.put(listed.model)
        self._report_lost_names()
        self._synced = True
        for key in dict.fromkeys([*before, *self._listed]):
            self.changed(key)

    def _report_lost_names(self) -> None:
        before, self._lost = self._lost, {}
        for key, listed in self._listed.items():
            lost = lost_names_message(self._names.lost(key))
            if lost:
                self._lost[key] = lost
                if before.get(key) != lost:
                    names = ", ".join(self._names.displayed_names(key))
                    display = display_name(listed.model)
                    self._log.problem("name_lost", display, reason=f"{lost}; clients reach this Model as {names}")

    def changed(self, key: str) -> None:
        """Rebuild the Model's entry and notify subscribers if it differs."""
        old = self._entries.pop(key, None)
        new = self.get(key)
        if old is not None and old == new:
            self._entries[key] = old
        else:
            for notify in self._subscribers:
                notify(key)
        self._request_plan()

    def source_changed(self, uri: str) -> None:
        """Rebuild the entries of the Models that wait for this source to be pulled."""
        for key in [key for key, listed in self._listed.items() if uri in listed.pulling]:
            self.changed(key)

    def decided(self, key: str, decision: Decision) -> None:
        """Record what the planner has decided, for ``observed``."""
        self._decisions[key] = decision

    def drain(self, key: str, draining: bool) -> None:
        """Set whether new requests for the Model are held although it has runners."""
        if draining != (key in self._draining):
            (self._draining.add if draining else self._draining.discard)(key)
            self.changed(key)

    def interrupt(self, key: str, interrupted: bool) -> None:
        """Set whether the Model's running requests are ended."""
        if interrupted != (key in self._interrupted):
            (self._interrupted.add if interrupted else self._interrupted.discard)(key)
            self.changed(key)

    def listed(self) -> Sequence[ListedModel]:
        return tuple(self._listed.values())

    def demand(self, key: str) -> Demand | None:
        return self._demand.get(key)

    @property
    def wanted_contexts(self) -> Mapping[str, int]:
        """The longest contexts that pending requests ask for, by key."""
        return self._wanted_contexts

    def set_context(self, key: str, length: int, longest: int) -> None:
        """Set the context of the Model's next runner, and the longest that requests can ask for."""
        if self._contexts.get(key) != (length, longest):
            self._contexts[key] = length, longest
            self.changed(key)

    def pull_wanted(self, key: str) -> bool:
        """Return whether requests of the Model are pending, or clients wait for the pull of its source."""
        return key in self._demand or key in self._wanted_pulls

    def draining(self, key: str) -> bool:
        return key in self._draining

    def _entry(self, listed: ListedModel) -> ModelEntry:
        key, pulling = listed.model.key, self._pulling(listed)
        expected, longest = self._contexts.get(key, (0, 0))
        return ModelEntry(
            model=listed.model,
            names=self._names.displayed_names(key),
            digest=listed.digest,
            modified=listed.modified,
            metadata=listed.weights.metadata or self._pulling_metadata(listed),
            endpoints=() if key in self._draining else self._runners.endpoints(key),
            unavailable_reason=self._failure(listed),
            interrupted=key in self._interrupted,
            pulling=pulling,
            unpulled=bool(listed.pulling) and pulling is None,
            defaults=listed.weights.defaults,
            latest=listed.latest,
            latest_problem=self._pull_problem(listed, listed.pulling) if listed.latest is not None else None,
            pull_problem=self._pull_problem(listed, listed.pulling, retries=False),
            context_length=self._runners.context_length(key) or expected,
            max_context_length=longest,
        )

    def _pulling(self, listed: ListedModel) -> tuple[PullingFile, ...] | None:
        """Return the files that are being pulled, None if no pull is under way: a request may have to start it."""
        pulls = [pull for pull in map(self._pull, listed.pulling) if pull is not None]
        return tuple(file for pull in pulls for file in pull.files) if pulls else None

    def _pulling_metadata(self, listed: ListedModel) -> ModelMetadata | None:
        """Return the metadata of weights whose header is read already, while they are pulled."""
        pull = None if listed.servable else self._pull(listed.model.spec.source)
        return pull.metadata if pull is not None else None

    def _failure(self, listed: ListedModel) -> str | None:
        name, spec = listed.names[0], listed.model.spec
        if spec.suspend:
            return f"model '{name}' is suspended"
        if spec.replicas == 0:
            return f"model '{name}' is scaled to zero by spec.replicas"
        if not listed.servable:
            return self._pull_problem(listed, listed.weights.missing)
        return listed.weights.problem or self._runners.failure(listed.model.key)

    def _pull_problem(self, listed: ListedModel, sources: Sequence[str], *, retries: bool = True) -> str | None:
        """Return why one of the sources cannot be pulled, with ``retries`` also when it is tried again."""
        failed = next((pull for pull in map(self._pull, sources) if pull is not None and pull.problem), None)
        if failed is None:
            return None
        retry = f" (next attempt in {failed.retry:.0f} s)" if retries and failed.retry is not None else ""
        return f"model '{listed.names[0]}' cannot be pulled: {failed.problem}{retry}"

    def _display_name(self, key: str) -> str:
        listed = self._listed.get(key)
        return display_name(listed.model) if listed is not None else key


def _phase(entry: ModelEntry, decision: Decision | None, *, starting: bool, draining: bool) -> str:
    """Return the phase that the operator would write (``corral_operator.report.conditions.phase``)."""
    if entry.model.spec.suspend:
        return "Suspended"
    if draining:
        return "Draining"
    if entry.endpoints:
        return "Ready"
    if entry.unavailable_reason is not None and entry.model.spec.replicas != 0:
        return "Failed"
    if entry.pulling is not None:
        return "Pulling"
    if starting:
        return "Loading"
    return "WaitingForCapacity" if decision is not None and decision.waiting_for_capacity else "Idle"
