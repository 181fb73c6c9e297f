"""Models and EndpointSlices of the API server as the gateway's Entries: pure functions."""

from __future__ import annotations

from collections.abc import Iterable

from corral_core.errors import InvalidModel
from corral_core.facts import ModelFacts
from corral_core.jsonfields import Json, integer, mapping, objects, text
from corral_core.model import Model
from corral_core.resource import names_of, parse_model, serving_digest
from corral_server.gateway.directory import Endpoint, Entry

MODEL_LABEL = "corral.dev/model"
PORT_NAME = "http"


def model_of(raw: Json) -> Model | None:
    """The Model, or None when it is not valid or is being deleted."""
    if text(raw, "metadata", "deletionTimestamp"):
        return None
    try:
        return parse_model(raw)
    except InvalidModel:
        return None


def model_key(slice_: Json) -> str:
    """The key of the Model whose runners an EndpointSlice lists."""
    return f"{text(slice_, 'metadata', 'namespace')}/{text(slice_, 'metadata', 'labels', MODEL_LABEL)}"


def entry_of(model: Model, status: Json, slices: Iterable[Json]) -> Entry:
    """Draining Models have no endpoints: their runners end what they have and take nothing new."""
    phase = text(status, "phase")
    return Entry(
        model=model,
        names=names_of(model),
        digest=serving_digest(model),
        modified=model.created,
        facts=_facts(status),
        endpoints=() if phase == "Draining" else endpoints_of(slices, _slots(model, status)),
        failure=_failure(model, status, phase),
    )


def endpoints_of(slices: Iterable[Json], slots: int) -> tuple[Endpoint, ...]:
    """The routable endpoints, ready and not terminating, in a stable order. One that two slices list counts once."""
    found = {}
    for slice_ in slices:
        port = next((integer(port, "port") for port in objects(slice_, "ports") if port.get("name") == PORT_NAME), 0)
        for endpoint in objects(slice_, "endpoints"):
            conditions = mapping(endpoint, "conditions")
            addresses = endpoint.get("addresses")
            if not port or not isinstance(addresses, list) or not addresses:
                continue
            if conditions.get("ready") is not True or conditions.get("terminating") is True:
                continue
            host = str(addresses[0])
            identity = text(endpoint, "targetRef", "uid") or f"{host}:{port}"
            found[identity] = Endpoint(id=identity, host=host, port=port, slots=slots)
    return tuple(found[identity] for identity in sorted(found))


def _slots(model: Model, status: Json) -> int:
    """What the runner said it has; before it said anything, what the Model asks for, else one."""
    told = integer(status, "placement", "parallel")
    asked = model.spec.parallel
    return told if told > 0 else asked if isinstance(asked, int) else 1


def _facts(status: Json) -> ModelFacts | None:
    try:
        return ModelFacts.from_json(mapping(status, "model"))
    except ValueError:
        return None


def _failure(model: Model, status: Json, phase: str) -> str | None:
    name = names_of(model)[0]
    if model.spec.suspend:
        return f"model '{name}' is suspended"
    if model.spec.replicas == 0:
        return f"model '{name}' is scaled to zero by spec.replicas"
    if phase != "Failed" or integer(status, "observedGeneration") < model.generation:
        return None  # an edit that the operator has not looked at yet may have cured it
    reasons = [text(item, "message") for item in objects(status, "conditions") if item.get("status") == "False"]
    return next((reason for reason in reversed(reasons) if reason), "the model cannot be loaded")
