"""``kubectl corral status``: one line for each Model, with the reason for its phase."""

from __future__ import annotations

from collections.abc import Iterable

from corral_core.base.json_fields import JsonObject, get_int, get_object, get_str
from corral_core.base.quantities import format_bytes
from corral_core.base.timestamps import parse_timestamp
from corral_kubectl.models import condition, name_of
from corral_kubectl.texts import age, shortened, table

_HEAD = ("NAME", "PHASE", "READY", "REPLICAS", "PENDING", "GPUS", "MEMORY", "UNLOADS", "REASON")
_REASON_LENGTH = 100


def status_lines(models: Iterable[JsonObject], now: float, *, namespaces: bool) -> list[str]:
    """Return the table. ``now`` is in Unix seconds; ``namespaces`` adds a column with the namespace."""
    head = ("NAMESPACE", *_HEAD) if namespaces else _HEAD
    rows = [_row(item, now) for item in models]
    return table(head, [row if namespaces else row[1:] for row in rows])


def _row(item: JsonObject, now: float) -> tuple[str, ...]:
    status = get_object(item, "status")
    replicas, placement = get_int(status, "replicas"), get_object(status, "placement")
    gpus, size = placement.get("gpus"), get_int(placement, "sizeBytes")
    return (
        get_str(item, "metadata", "namespace"),
        name_of(item),
        _phase(status),
        get_str(condition(item, "Ready"), "status") or "Unknown",
        get_str(status, "columns", "replicas") or f"{get_int(status, 'readyReplicas')}/{replicas}",
        str(get_int(status, "pending")),
        str(gpus) if isinstance(gpus, int) else "",
        format_bytes(size * replicas) if replicas and size else "",
        _unload(status, now),
        shortened(explanation(item), _REASON_LENGTH),
    )


def _phase(status: JsonObject) -> str:
    phase, pulled = get_str(status, "phase") or "Pending", get_str(status, "pull", "completed")
    return f"{phase} {pulled}" if phase == "Pulling" and pulled else phase


def _unload(status: JsonObject, now: float) -> str:
    """Return the time left until the unload, ``never`` for a loaded Model that stays, empty for any other one."""
    expires = parse_timestamp(get_str(status, "expiresAt"))
    if expires is not None:
        return f"in {age(expires - now)}" if expires > now else "now"
    return "never" if get_str(status, "keepAlive") in ("forever", "-1") and get_int(status, "readyReplicas") else ""


def explanation(item: JsonObject) -> str:
    """Return the message of the condition that explains the phase."""
    kinds = ["Stalled"]
    if get_str(item, "status", "phase") == "Degraded":
        kinds.append("Accelerated")
    kinds += [kind for kind in ("Loaded", "Ready") if get_str(condition(item, kind), "status") == "False"]
    texts = (get_str(condition(item, kind), "message") for kind in (*kinds, "Loaded", "Ready", "Accepted"))
    return next(filter(None, texts), "the operator has not processed this Model yet")
