"""Demand: the contract between gateways and the operator in ``status.demand`` of a Model.

- A gateway keeps an entry while it holds pending requests for the Model, or while a client waits for the pull of its
  weights (``/api/pull``). An entry with 0 requests asks for the pull alone, and starts no runner.
- Each gateway owns one entry of the list map (key ``gateway``) by server-side apply with its own field manager.
- An entry counts only while it is renewed, so the demand of a gateway that vanished expires.
- Both times of an entry are those of the gateway's clock, which may be wrong. A reader uses only their difference, the
  age of the oldest request, and that ``renewed`` changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from corral_core.base.json_fields import JsonObject, get_int, get_objects, get_str
from corral_core.base.timestamps import format_micro_time, parse_timestamp

RENEW_INTERVAL = 5.0
"""Seconds between two renewals of an entry."""

MAX_AGE = 30 * 86400.0
"""Seconds; an older request counts as one of this age."""

ENTRY_TTL = 3 * RENEW_INTERVAL
"""Seconds after its last renewal at which an entry expires."""


@dataclass(frozen=True, slots=True)
class DemandEntry:
    """Pending requests of one gateway: number, arrival of the oldest and last renewal, in Unix seconds of its clock.

    ``context_length`` is the longest context in tokens that one of them asks for, 0 if the present one suffices.
    """

    gateway: str
    waiting: int
    oldest: float
    renewed: float
    context_length: int = 0

    @property
    def age(self) -> float:
        """Seconds for which the oldest request had been pending at the renewal."""
        return min(max(self.renewed - self.oldest, 0.0), MAX_AGE)

    def to_json(self) -> dict[str, object]:
        context = {"contextLength": self.context_length} if self.context_length else {}
        return {
            **context,
            "gateway": self.gateway,
            "waiting": self.waiting,
            "oldest": format_micro_time(self.oldest),
            "renewed": format_micro_time(self.renewed),
        }


def parse_demand(status: JsonObject) -> tuple[DemandEntry, ...]:
    """Parse the entries of a Model's status; malformed ones are skipped."""
    found = []
    for item in get_objects(status, "demand"):
        gateway, waiting = get_str(item, "gateway"), get_int(item, "waiting") if "waiting" in item else -1
        oldest, renewed = parse_timestamp(get_str(item, "oldest")), parse_timestamp(get_str(item, "renewed"))
        if gateway and waiting >= 0 and oldest is not None and renewed is not None:
            context = max(0, get_int(item, "contextLength"))
            found.append(DemandEntry(gateway, waiting, oldest=oldest, renewed=renewed, context_length=context))
    return tuple(found)


def field_manager(gateway: str) -> str:
    """Name the field manager that owns a gateway's entries."""
    return f"corral-gateway-{gateway}"
