"""PersistentVolumeClaims with pulled weights, as observed."""

from __future__ import annotations

from dataclasses import dataclass

from corral_core.base.errors import InvalidQuantity
from corral_core.base.json_fields import JsonObject, get_str
from corral_core.base.quantities import parse_quantity
from corral_core.model.model import Model
from corral_operator.observe.labels import owned_name
from corral_operator.observe.objects import Meta, model_of, parse_meta


@dataclass(frozen=True, slots=True)
class ClaimObject:
    """A claim of a Model. ``requested`` is its size in bytes as requested; ``bound``: it has a volume."""

    meta: Meta
    requested: int
    bound: bool


def parse_claim(raw: JsonObject) -> ClaimObject:
    try:
        requested = int(parse_quantity(get_str(raw, "spec", "resources", "requests", "storage")))
    except InvalidQuantity:
        requested = 0
    return ClaimObject(
        meta=parse_meta(raw, model_of(raw)),
        requested=requested,
        bound=get_str(raw, "status", "phase") == "Bound",
    )


def claim_name(model: Model) -> str:
    """Return the name of the claim that has the pulled weights of a Model."""
    return model.spec.cache.claim_name or owned_name(model.name)
