"""Eviction after the deadline: the contract between the operator and the gateways in the status of a Model.

While the condition Loaded has the reason ``EVICTION_TIMEOUT``, the operator is ending the runners of the Model and the
gateways end the requests that still run there, each with an error that says why.
"""

from __future__ import annotations

from corral_core.base.json_fields import JsonObject, get_objects, get_str

LOADED = "Loaded"
"""Type of the condition that tells whether a Model has a ready runner."""

EVICTION_TIMEOUT = "EvictionTimeout"
"""Reason of that condition."""


def is_interrupted(status: JsonObject) -> bool:
    """Return whether the requests of the Model with this status are ended now."""
    conditions = get_objects(status, "conditions")
    return any(get_str(item, "type") == LOADED and get_str(item, "reason") == EVICTION_TIMEOUT for item in conditions)
