"""The gateway's Directory in local mode: Models from files, runners from the supervisor, demand for the planner.

It keeps intent and demand; whether runners are there it asks the supervisor every time, so nothing is copied. Entries
are cached until something about them changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from corral_core.names import canonical
from corral_core.resource import claims
from corral_core.snapshot import Demand
from corral_server.gateway.directory import Endpoint, Entry
from corral_server.local.child import label
from corral_server.local.files import Listed
from corral_server.local.logs import EventLog


class Runners(Protocol):
    """What the directory asks of the supervisor."""

    def endpoints(self, key: str) -> tuple[Endpoint, ...]: ...

    def failure(self, key: str) -> str | None: ...


class LocalDirectory:
    """``wake`` is called when the planner has something new to look at."""

    def __init__(self, runners: Runners, log: EventLog, wake: Callable[[], None]) -> None:
        self._runners = runners
        self._log = log
        self._wake = wake
        self._listed: dict[str, Listed] = {}
        self._refused: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._entries: dict[str, Entry] = {}
        self._demand: dict[str, Demand] = {}
        self._draining: set[str] = set()
        self._awaited: set[str] = set()
        self._subscribers: list[Callable[[str], None]] = []
        self._settled = False

    # The gateway's side

    def find(self, name: str) -> Entry | None:
        key = self._names.get(canonical(name))
        return self.get(key) if key is not None else None

    def get(self, key: str) -> Entry | None:
        listed = self._listed.get(key)
        if listed is None:
            return None
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = self._entry(listed)
        return entry

    def entries(self) -> Sequence[Entry]:
        served = [self.get(key) for key in self._listed if key not in self._refused]
        return sorted(filter(None, served), key=lambda entry: entry.modified, reverse=True)

    def subscribe(self, changed: Callable[[str], None]) -> None:
        self._subscribers.append(changed)

    def demand(self, key: str, waiting: int, oldest: float | None) -> None:
        before = self._demand.pop(key, None)
        if waiting > 0 and oldest is not None:
            self._demand[key] = Demand(waiting, oldest)
        if (before is None) != (key not in self._demand):
            self._say_demand(key, waiting, oldest)
        self._wake()

    def settled(self) -> bool:
        return self._settled

    def _say_demand(self, key: str, waiting: int, oldest: float | None) -> None:
        """The beginning of a wait for a runner, and its end; a wait for a slot of a warm one is everyday business."""
        entry = self.get(key)
        if waiting and entry is not None and not entry.endpoints:
            self._awaited.add(key)
        if key in self._awaited:
            self._log.event("demand", self._label(key), waiting=waiting, oldest=oldest)
        if not waiting:
            self._awaited.discard(key)

    # The planner's side

    def replace(self, models: Sequence[Listed]) -> None:
        """These are the Models from now on."""
        before = self._listed
        self._listed = {listed.model.key: listed for listed in models}
        refused, self._refused = self._refused, claims(listed.model for listed in models)
        for key in self._refused.keys() - refused.keys():
            self._log.problem("name-refused", self._label(key), reason=self._refused[key])
        self._names = {}
        for listed in sorted(models, key=lambda listed: listed.model.key in self._refused):
            for name in listed.names:
                self._names.setdefault(name, listed.model.key)
        self._settled = True
        for key in dict.fromkeys([*before, *self._listed]):
            self.changed(key)

    def changed(self, key: str) -> None:
        """Something that an Entry is made of may be different now."""
        old = self._entries.pop(key, None)
        new = self.get(key)
        if old is not None and old == new:
            self._entries[key] = old
        else:
            for tell in self._subscribers:
                tell(key)
        self._wake()

    def drain(self, key: str, draining: bool) -> None:
        """Whether new requests for the Model wait although it has runners."""
        if draining != (key in self._draining):
            (self._draining.add if draining else self._draining.discard)(key)
            self.changed(key)

    def listed(self) -> Sequence[Listed]:
        return tuple(self._listed.values())

    def refused(self, key: str) -> str | None:
        """Why the Model is not served whatever happens: another one has its name."""
        return self._refused.get(key)

    def wanted(self, key: str) -> Demand | None:
        return self._demand.get(key)

    def draining(self, key: str) -> bool:
        return key in self._draining

    def _entry(self, listed: Listed) -> Entry:
        key = listed.model.key
        return Entry(
            model=listed.model,
            names=listed.names,
            digest=listed.digest,
            modified=listed.modified,
            facts=listed.weights.facts,
            endpoints=() if key in self._draining else self._runners.endpoints(key),
            failure=self._failure(listed),
        )

    def _failure(self, listed: Listed) -> str | None:
        name, spec = listed.names[0], listed.model.spec
        refused = self._refused.get(listed.model.key)
        if refused is not None:
            return f"model '{listed.model.name}' is not served: {refused}"
        if spec.suspend:
            return f"model '{name}' is suspended"
        if spec.replicas == 0:
            return f"model '{name}' is scaled to zero by spec.replicas"
        return listed.weights.problem or self._runners.failure(listed.model.key)

    def _label(self, key: str) -> str:
        listed = self._listed.get(key)
        return label(listed.model) if listed is not None else key
