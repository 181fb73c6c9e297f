"""Conversion of Models and EndpointSlices to ModelEntry values: pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from corral_core.base.errors import InvalidModel
from corral_core.base.json_fields import JsonObject, get_int, get_object, get_objects, get_str
from corral_core.contracts.eviction import is_interrupted
from corral_core.contracts.model_identity import model_identity
from corral_core.contracts.model_metadata import metadata_in_status
from corral_core.contracts.packed_defaults import source_defaults
from corral_core.model.model import Model
from corral_core.model.remote_sources import pulled_in_pod, remote_sources
from corral_core.model.resource import client_names, parse_model, runner_spec_digest
from corral_server.gateway.directory.directory import Endpoint, ModelEntry, PullingFile

MODEL_LABEL = "corral.dev/model"
PORT_NAME = "http"

_BEFORE_THE_END_OF_A_PULL = frozenset({"", "Pending", "Pulling", "WaitingForCapacity", "Failed"})
"""Phases of a Model whose sources are not pulled; in any other one it waits for a request, or older runners serve. A
puller waits for capacity while no node has room for it, or its volume is not made yet."""

_MODEL_METADATA = (
    "name",
    "namespace",
    "uid",
    "generation",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
)


def model_of(raw: JsonObject) -> Model | None:
    """Parse a Model; None if it is invalid or being deleted."""
    if get_str(raw, "metadata", "deletionTimestamp"):
        return None
    try:
        return parse_model(raw)
    except InvalidModel:
        return None


def trim_model(raw: JsonObject) -> JsonObject:
    """Keep what the directory reads of a Model; annotations and managed fields can take more memory than the rest."""
    metadata = get_object(raw, "metadata")
    return {**raw, "metadata": {name: metadata[name] for name in _MODEL_METADATA if name in metadata}}


def model_key(slice_: JsonObject) -> str:
    """Return the key of the Model whose runners the EndpointSlice lists."""
    return f"{get_str(slice_, 'metadata', 'namespace')}/{get_str(slice_, 'metadata', 'labels', MODEL_LABEL)}"


def entry_of(
    model: Model, status: JsonObject, slices: Iterable[JsonObject], *, names: tuple[str, ...] = ()
) -> ModelEntry:
    """Build the entry; ``names`` are those by which clients reach the Model, by default its own.

    A draining Model has no endpoints: its runners finish their requests and accept no new ones."""
    phase = get_str(status, "phase")
    metadata = metadata_in_status(status)
    return ModelEntry(
        model=model,
        names=names or client_names(model),
        digest=runner_spec_digest(model),
        modified=model.created,
        metadata=metadata,
        endpoints=() if phase == "Draining" else endpoints_of(slices, model, slots=_slots(model, status)),
        unavailable_reason=_unavailable_reason(model, status, phase),
        interrupted=is_interrupted(status),
        pulling=pulling_files(model, status, phase),
        unpulled=phase == "Idle" and _needs_pull(model, status) and not pulled_in_pod(model.spec),
        defaults=source_defaults(metadata),
        reconciled=get_int(status, "observedGeneration") >= model.generation,
        context_length=max(0, get_int(status, "placement", "contextLength")),
        max_context_length=_max_context_length(model, status),
    )


def _max_context_length(model: Model, status: JsonObject) -> int:
    """Return the longest context that requests can ask for, 0 without the policy or before the operator knows it."""
    if model.spec.context_policy != "Grow":
        return 0
    return max(0, get_int(status, "placement", "maxContextLength"))


def pulling_files(model: Model, status: JsonObject, phase: str) -> tuple[PullingFile, ...] | None:
    """Return the pull of the Model's remote sources as one file, none before it begins; None while there is no pull.

    Its digest is that of what was resolved, since the status has the size of all files only.
    """
    if phase not in _BEFORE_THE_END_OF_A_PULL or not _needs_pull(model, status):
        return None
    if phase == "WaitingForCapacity" and pulled_in_pod(model.spec):
        return None  # there is no pod yet
    pull = get_object(status, "pull")
    if not pull:
        return ()
    resolved = f"{model.spec.source} {get_str(status, 'source', 'pin')}"
    total, completed = (max(get_int(pull, name), 0) for name in ("totalBytes", "completedBytes"))
    return (PullingFile(hashlib.sha256(resolved.encode()).hexdigest(), total, completed),)


def _needs_pull(model: Model, status: JsonObject) -> bool:
    return bool(remote_sources(model.spec)) and not _is_true(status, "Pulled")


def _is_true(status: JsonObject, condition: str) -> bool:
    found = [item for item in get_objects(status, "conditions") if get_str(item, "type") == condition]
    return any(get_str(item, "status") == "True" for item in found)


def endpoints_of(slices: Iterable[JsonObject], model: Model, *, slots: int) -> tuple[Endpoint, ...]:
    """Return the endpoints of the Model that are ready and not terminating, in a stable order.

    An endpoint in two slices counts once.
    """
    found = {}
    owner = model_identity(model.key, model.uid)
    for slice_ in slices:
        port = next(
            (get_int(port, "port") for port in get_objects(slice_, "ports") if port.get("name") == PORT_NAME), 0
        )
        for endpoint in get_objects(slice_, "endpoints"):
            conditions = get_object(endpoint, "conditions")
            addresses = endpoint.get("addresses")
            if not port or not isinstance(addresses, list) or not addresses:
                continue
            if conditions.get("ready") is not True or conditions.get("terminating") is True:
                continue
            host = str(addresses[0])
            identity = get_str(endpoint, "targetRef", "uid") or f"{host}:{port}"
            found[identity] = Endpoint(id=identity, host=host, port=port, slots=slots, model=owner)
    return tuple(found[identity] for identity in sorted(found))


def _slots(model: Model, status: JsonObject) -> int:
    """Return the slots that the runner reported, else those that the Model requests, else 1."""
    reported = get_int(status, "placement", "parallel")
    requested = model.spec.parallel
    return reported if reported > 0 else requested if isinstance(requested, int) else 1


def _unavailable_reason(model: Model, status: JsonObject, phase: str) -> str | None:
    name = client_names(model)[0]
    if model.spec.suspend:
        return f"model '{name}' is suspended"
    if model.spec.replicas == 0:
        return f"model '{name}' is scaled to zero by spec.replicas"
    if phase != "Failed" or get_int(status, "observedGeneration") < model.generation:
        return None  # a newer spec, not yet reconciled, may have fixed it
    ready = next((item for item in get_objects(status, "conditions") if get_str(item, "type") == "Ready"), {})
    return get_str(ready, "message") or "the model cannot be loaded"
