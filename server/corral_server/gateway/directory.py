"""Where Models and runners come from: the one seam of the gateway.

Two implementations: the API server (Models and EndpointSlices are watched) and local mode (files and child processes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from corral_core.facts import ModelFacts
from corral_core.model import Model


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One routable runner: ready and not terminating. ``slots`` is how many requests it serves at once."""

    id: str
    host: str
    port: int
    slots: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A Model as the gateway routes to it. ``names`` are canonical (``model:tag``), the first one is its main name.

    ``failure`` is why the Model cannot be served at present (suspended, cannot load ...); requests get it as their
    error instead of waiting. ``digest`` is 64 hex digits over the Model's serving spec, like a manifest's digest.
    """

    model: Model
    names: tuple[str, ...]
    digest: str
    modified: float
    facts: ModelFacts | None
    endpoints: tuple[Endpoint, ...]
    failure: str | None = None

    @property
    def key(self) -> str:
        return self.model.key


class Directory(Protocol):
    """The Models as they are now. All methods are synchronous, cheap and called on the gateway's event loop."""

    def find(self, name: str) -> Entry | None:
        """The Model that a client's ``name`` means (case-insensitive, tag ``latest`` implied).

        Raises InvalidName when the name cannot be parsed.
        """

    def get(self, key: str) -> Entry | None:
        """The Model with this ``namespace/name``, if it still exists."""

    def entries(self) -> Sequence[Entry]:
        """Every served Model, the newest first."""

    def subscribe(self, changed: Callable[[str], None]) -> None:
        """``changed(key)`` is called after every change of a Model's Entry, removal included."""

    def demand(self, key: str, waiting: int, oldest: float | None) -> None:
        """States how many requests wait for the Model now and when the oldest arrived (Unix seconds).

        A level, not an event: it may be repeated, and 0 withdraws it. Never blocks; the implementation writes and
        renews it by itself.
        """

    def settled(self) -> bool:
        """Whether the first listing is complete, so that an unknown name really is unknown."""
