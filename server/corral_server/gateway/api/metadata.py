"""Responses about Models that need no runner: tags, show, and OpenAI's list of models.

They are built from the directory. A Model whose metadata is unknown yet is listed without it.
"""

from __future__ import annotations

from corral_core.base.errors import InvalidName
from corral_core.base.names import parse_name, parse_requested_name
from corral_core.weights.template_capabilities import with_template
from corral_server.gateway.api import cloud_names
from corral_server.gateway.directory.directory import Directory, FoundModel, ModelEntry, pulled_bytes
from corral_server.wire.errors import ApiError
from corral_server.wire.show import details, show_object, timestamp

OWNER = "library"
_STARTING = "the gateway is starting and has not listed all models yet, please try again"


def tags(directory: Directory) -> dict[str, object]:
    """/api/tags: one item per name of each Model, the newest Model first.

    An item has ``pulling`` beside Ollama's fields while the Model's source is pulled, with the ``error`` of a pull that
    failed and is tried again.
    """
    entries = sorted(directory.entries(), key=lambda entry: entry.modified, reverse=True)
    return {"models": [_tag(entry, name) for entry in entries for name in entry.names]}


def _tag(entry: ModelEntry, name: str) -> dict[str, object]:
    template = entry.model.spec.template or entry.defaults.template or None
    metadata = with_template(entry.metadata, template) if entry.metadata else None
    known: dict[str, object] = {}
    model_details = details(metadata)
    if metadata is not None:
        known = {"capabilities": list(metadata.capabilities)}
        model_details |= {"context_length": metadata.context_length, "embedding_length": metadata.embedding_length}
    if entry.pulling is not None:
        total, completed = pulled_bytes(entry.pulling)
        failed = {"error": entry.unavailable_reason} if entry.unavailable_reason is not None else {}
        known = {**known, "pulling": {"total": total, "completed": completed, **failed}}
    return {
        "name": name,
        "model": name,
        "modified_at": timestamp(entry.modified),
        "size": metadata.size if metadata else 0,
        "digest": entry.digest,
        "details": model_details,
        **known,
    }


def show(directory: Directory, name: str, *, system: str, user_agent: bytes) -> dict[str, object]:
    """/api/show. Raises ApiError for an invalid or unknown name."""
    entry = lookup(directory, name, unknown="model '{}' not found", displayed_name=with_tag(name)).entry
    agent = user_agent.decode("latin-1")
    return show_object(
        entry.model.spec,
        entry.metadata,
        modified=entry.modified,
        defaults=entry.defaults,
        requested_name=name,
        system=system,
        user_agent=agent,
    )


def openai_models(directory: Directory) -> dict[str, object]:
    """/v1/models; ``data`` is null if there are no models, as in Ollama."""
    entries = sorted(directory.entries(), key=lambda entry: entry.modified, reverse=True)
    return {"object": "list", "data": [_openai(entry, name) for entry in entries for name in entry.names] or None}


def openai_model(directory: Directory, name: str) -> dict[str, object]:
    """/v1/models/{model}; the id repeats the requested name. Raises ApiError."""
    entry = lookup(directory, name, unknown="model '{}' not found", displayed_name=with_tag(name)).entry
    return _openai(entry, name)


def _openai(entry: ModelEntry, name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": int(entry.modified), "owned_by": _owner(name)}


def _owner(name: str) -> str:
    try:
        return parse_name(name).namespace
    except InvalidName:
        return OWNER


def with_tag(name: str) -> str:
    """Return the name with its tag, ``latest`` if it has none, as some error texts show it; as it is if invalid."""
    try:
        return parse_requested_name(name).short
    except InvalidName:
        return name


def lookup(directory: Directory, name: str, *, unknown: str, displayed_name: str | None = None) -> FoundModel:
    """Look up a Model by a client's name.

    ``unknown`` is the text of the 404, with ``{}`` in the place of ``displayed_name``; without a text, names of
    Ollama's cloud are as any others. Raises ApiError: 400 for an invalid name, 403 for one of the cloud, 404 for an
    unknown one, 503 before the Models are listed.
    """
    try:
        found = directory.find(name)
    except InvalidName:
        raise ApiError(400, cloud_names.conflicting_sources(name) or "invalid model name") from None
    if found is not None:
        return found
    if conflict := cloud_names.conflicting_sources(name):
        raise ApiError(400, conflict)
    if not directory.synced():
        raise ApiError(503, _STARTING, retry_after=1)
    if unknown and cloud_names.is_cloud_name(name):
        raise cloud_names.cloud_disabled(cloud_names.MODEL if displayed_name is None else cloud_names.DETAILS)
    raise ApiError(404, unknown.replace("{}", name if displayed_name is None else displayed_name))
