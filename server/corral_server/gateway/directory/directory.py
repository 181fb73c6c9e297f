"""Directory of Models and their endpoints, the gateway's interface to its environment.

Implementations: ``KubeDirectory`` (watches Models and EndpointSlices) and ``LocalDirectory`` (files and child
processes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.contracts.source_defaults import NO_DEFAULTS, SourceDefaults
from corral_core.model.model import Model, ModelSpec
from corral_core.model.name_index import EVERYWHERE, Scope


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address of a runner that is ready and not terminating. ``slots`` is the number of concurrent requests.

    ``model`` is the identity of its Model (``corral_core.contracts.model_identity``), which every request to it names.
    """

    id: str
    host: str
    port: int
    slots: int
    model: str = ""


@dataclass(frozen=True, slots=True)
class PullingFile:
    """A file of a source that is being pulled. ``total`` (0 if not known) and ``completed`` are bytes.

    ``digest`` is 64 hex digits: the file's SHA-256, or that of its name if the source does not say the former.
    """

    digest: str
    total: int
    completed: int


def pulled_bytes(files: Iterable[PullingFile]) -> tuple[int, int]:
    """Return the size of all files, 0 if one is not known, and how many bytes of them are pulled."""
    sizes = [(file.total, file.completed) for file in files]
    total = sum(size for size, _ in sizes) if all(size for size, _ in sizes) else 0
    return total, sum(completed for _, completed in sizes)


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A Model with its endpoints.

    ``names`` are those by which a caller reaches the Model, canonical (``model:tag``); the first one is the main name.
    ``unavailable_reason`` is set when the Model cannot be served (suspended, cannot load ...): requests fail with it
    instead of being queued. ``interrupted``: its runners are ended after the eviction timeout, and their running
    requests with them. ``digest`` is 64 hex digits over the Model's serving spec, like a manifest's digest.
    ``pulling`` are the files of the Model's source while they are pulled, none as long as they are not known; None when
    the source is pulled or needs no pull. ``unpulled``: it is not pulled, and will be when a request or a client that
    pulls asks for it. ``defaults`` are what the source brings besides weights. ``reconciled``: the entry is of the spec
    as it is now, not of one before. ``latest`` is the spec that is served once its source is pulled, if it is not that
    of ``model``; ``latest_problem`` says why it cannot be pulled. ``pull_problem`` is why the last pull
    failed, without the time of the next attempt. ``context_length`` is that of its runners, or of the next one;
    ``max_context_length`` is what requests can ask for, 0 where they cannot.
    """

    model: Model
    names: tuple[str, ...]
    digest: str
    modified: float
    metadata: ModelMetadata | None
    endpoints: tuple[Endpoint, ...]
    unavailable_reason: str | None = None
    interrupted: bool = False
    pulling: tuple[PullingFile, ...] | None = None
    unpulled: bool = False
    defaults: SourceDefaults = NO_DEFAULTS
    reconciled: bool = True
    latest: ModelSpec | None = None
    latest_problem: str | None = None
    pull_problem: str | None = None
    context_length: int = 0
    max_context_length: int = 0

    @property
    def latest_spec(self) -> ModelSpec:
        return self.latest if self.latest is not None else self.model.spec

    @property
    def key(self) -> str:
        return self.model.key

    @property
    def needs_pull(self) -> bool:
        return self.unpulled or self.pulling is not None


@dataclass(frozen=True, slots=True)
class FoundModel:
    """Model that a client's name addresses. ``name`` is the one of the Model's names that was meant, canonical."""

    entry: ModelEntry
    name: str


@dataclass(frozen=True, slots=True)
class ObservedState:
    """State of a Model for people; requests are not routed by it.

    ``phase`` is one of those of ``status.phase``, ``reason`` is the explanation. ``namespace`` is None outside of a
    cluster. ``replicas`` are the runners that are not terminating, ``ready`` those that serve. ``gpus`` is their number
    of GPUs, None if it is not known. ``nodes`` are the nodes of the runners that serve.
    """

    phase: str
    reason: str
    namespace: str | None = None
    replicas: int = 0
    ready: int = 0
    gpus: int | None = None
    nodes: tuple[str, ...] = ()


class Directory(Protocol):
    """Current Models. All methods are synchronous, cheap and called on the gateway's event loop."""

    def find(self, name: str, scope: Scope = EVERYWHERE) -> FoundModel | None:
        """Look up a Model by a client's name (case-insensitive, tag ``latest`` implied). Raises InvalidName.

        ``scope`` are the namespaces that the client sees, as in ``NameIndex``.
        """

    def sees(self, scope: Scope, namespace: str) -> bool:
        """Return whether a client with this scope sees the namespace."""

    def displayed_names(self, key: str, scope: Scope) -> tuple[str, ...]:
        """Return the canonical names by which a client with this scope reaches the Model."""

    def get(self, key: str) -> ModelEntry | None:
        """Look up a Model by ``namespace/name``."""

    def observed(self, key: str) -> ObservedState | None:
        """Return the state of the Model with this ``namespace/name``, None if it is not served."""

    def entries(self) -> Sequence[ModelEntry]:
        """Return all served Models, the newest first."""

    def subscribe(self, changed: Callable[[str], None]) -> None:
        """Call ``changed(key)`` after every change of a Model's entry, its removal included."""

    def report_demand(self, key: str, pending: int, oldest: float | None) -> None:
        """Report the number of pending requests of the Model, and the arrival of the oldest one in Unix seconds.

        Reports are level-based: they may be repeated, and 0 withdraws the demand. Does not block; the implementation
        writes and renews the report.
        """

    def want_context(self, key: str, length: int) -> None:
        """Report the longest context in tokens that pending requests of the Model ask for, 0 without any.

        Level-based, as demand. Does not block.
        """

    def want_pull(self, key: str, wanted: bool) -> None:
        """Report whether clients wait for the pull of the Model's source: it is pulled, and no runner is started.

        Level-based, as demand. Does not block.
        """

    def synced(self) -> bool:
        """Return whether the first listing is complete. Until then an unknown name may belong to an unlisted Model."""
