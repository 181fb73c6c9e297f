"""A gateway's word, in ``status.demand``, that requests wait for a Model.

Each gateway owns one entry of the list map (key ``gateway``) by server-side apply under its own field manager. An
entry counts only while it is renewed: a gateway that vanished stops demanding by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from corral_core.jsonfields import Json, integer, objects, text
from corral_core.timestamps import format_micro, parse_timestamp

RENEW_EVERY = 5.0
"""Seconds between two renewals of an entry."""

LIFETIME = 3 * RENEW_EVERY
"""Seconds after the last renewal at which an entry stops counting."""


@dataclass(frozen=True, slots=True)
class DemandEntry:
    """``waiting`` requests wait at ``gateway``; ``oldest`` arrived first, ``renewed`` is when it was said last."""

    gateway: str
    waiting: int
    oldest: float
    renewed: float

    def to_json(self) -> dict[str, object]:
        return {
            "gateway": self.gateway,
            "waiting": self.waiting,
            "oldest": format_micro(self.oldest),
            "renewed": format_micro(self.renewed),
        }


def entries_of(status: Json) -> tuple[DemandEntry, ...]:
    """The well-formed entries of a Model's status; what cannot be read is left out."""
    found = []
    for item in objects(status, "demand"):
        gateway, waiting = text(item, "gateway"), integer(item, "waiting")
        oldest, renewed = parse_timestamp(text(item, "oldest")), parse_timestamp(text(item, "renewed"))
        if gateway and waiting > 0 and oldest is not None and renewed is not None:
            found.append(DemandEntry(gateway, waiting, oldest=oldest, renewed=renewed))
    return tuple(found)


def field_manager(gateway: str) -> str:
    """The field manager that owns a gateway's entries."""
    return f"corral-gateway-{gateway}"
