"""Sample statuses of inspector pods."""

from __future__ import annotations

from collections.abc import Mapping

from corral_core.base.json_fields import JsonObject
from corral_core.model.resource import parse_model
from corral_operator.config import RunnerDefaults
from corral_operator.reconcile.inspector_pod import inspector_pod
from tests.operator import samples


def inspector_in(status: Mapping[str, object]) -> JsonObject:
    """Return the inspector pod of the sample Model with this status."""
    return {**inspector_pod(parse_model(samples.model()), defaults=RunnerDefaults()), "status": status}


def succeeded(message: str, *, finished: str = "") -> dict[str, object]:
    terminated = {"terminated": {"exitCode": 0, "message": message, **({"finishedAt": finished} if finished else {})}}
    return {"phase": "Succeeded", "containerStatuses": [container(terminated)]}


def crashed(message: str) -> dict[str, object]:
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": message}}
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    return {"phase": "Running", "containerStatuses": [{**container(waiting), "lastState": ended}]}


def container(state: Mapping[str, object]) -> dict[str, object]:
    return {"name": "inspector", "restartCount": 0, "state": state}
