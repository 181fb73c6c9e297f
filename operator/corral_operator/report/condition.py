"""A condition of a Model, in the form of the Kubernetes API conventions.

https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md
"""

from __future__ import annotations

from dataclasses import dataclass

from corral_core.base.json_fields import JsonObject, get_objects, get_str
from corral_core.base.timestamps import format_time
from corral_operator.observe.objects import ModelObject


@dataclass(frozen=True, slots=True)
class Condition:
    type: str
    true: bool
    reason: str
    message: str

    def to_json(self, item: ModelObject, now: float) -> dict[str, object]:
        """Return the API's form; ``lastTransitionTime`` stays while the condition's status stays."""
        old = condition_in(item.status, self.type)
        status = "True" if self.true else "False"
        same = get_str(old, "status") == status and get_str(old, "lastTransitionTime")
        return {
            "type": self.type,
            "status": status,
            "reason": self.reason,
            "message": self.message[:32768],
            "observedGeneration": item.meta.generation,
            "lastTransitionTime": get_str(old, "lastTransitionTime") if same else format_time(now),
        }


def condition_in(status: JsonObject, kind: str) -> JsonObject:
    """Return the condition of this type in a status, empty if there is none."""
    return next((one for one in get_objects(status, "conditions") if get_str(one, "type") == kind), {})
