"""What the gateway answers by itself about Models, running or cold: tags, show, and OpenAI's list of models.

All of it comes from the directory's Entries; a Model whose weights nobody has read yet is listed without its facts.
"""

from __future__ import annotations

from corral_core.errors import InvalidName
from corral_core.names import parse_name
from corral_core.template_facts import with_template
from corral_server.gateway.directory import Directory, Entry
from corral_server.wire.errors import ApiError
from corral_server.wire.show import details, show_object, timestamp

OWNER = "library"
_STARTING = "the gateway is starting and does not know all models yet, please try again"


def tags(directory: Directory) -> dict[str, object]:
    """/api/tags: one item for each name of each Model, the newest Model first."""
    entries = sorted(directory.entries(), key=lambda entry: entry.modified, reverse=True)
    return {"models": [_tag(entry, name) for entry in entries for name in entry.names]}


def _tag(entry: Entry, name: str) -> dict[str, object]:
    facts = with_template(entry.facts, entry.model.spec.template) if entry.facts else None
    known: dict[str, object] = {}
    shown = details(facts)
    if facts is not None:
        known = {"capabilities": list(facts.capabilities)}
        shown |= {"context_length": facts.context_length, "embedding_length": facts.embedding_length}
    return {
        "name": name,
        "model": name,
        "modified_at": timestamp(entry.modified),
        "size": facts.size if facts else 0,
        "digest": entry.digest,
        "details": shown,
        **known,
    }


def show(directory: Directory, name: str, *, system: str, user_agent: bytes) -> dict[str, object]:
    """/api/show. Raises ApiError for a name that is wrong or unknown."""
    entry = lookup(directory, name, unknown="model '{}' not found", shown=with_tag(name))
    agent = user_agent.decode("latin-1")
    return show_object(
        entry.model.spec, entry.facts, modified=entry.modified, asked=name, system=system, user_agent=agent
    )


def openai_models(directory: Directory) -> dict[str, object]:
    """/v1/models; ``data`` is null when there are none, as with Ollama."""
    entries = sorted(directory.entries(), key=lambda entry: entry.modified, reverse=True)
    return {"object": "list", "data": [_openai(entry, name) for entry in entries for name in entry.names] or None}


def openai_model(directory: Directory, name: str) -> dict[str, object]:
    """/v1/models/{model}: the id echoes what was asked for. Raises ApiError."""
    entry = lookup(directory, name, unknown="model '{}' not found", shown=with_tag(name))
    return _openai(entry, name)


def _openai(entry: Entry, name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": int(entry.modified), "owned_by": _owner(name)}


def _owner(name: str) -> str:
    try:
        return parse_name(name).namespace
    except InvalidName:
        return OWNER


def with_tag(name: str) -> str:
    """The name as some error texts show it: with its tag, ``latest`` when it has none."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def lookup(directory: Directory, name: str, *, unknown: str, shown: str | None = None) -> Entry:
    """The Model that this name means.

    ``unknown`` is the text of the 404, with ``{}`` where ``shown`` goes. Raises ApiError: 400 for a name outside the
    grammar, 404 for an unknown one, 503 while the directory cannot know yet.
    """
    try:
        entry = directory.find(name)
    except InvalidName:
        raise ApiError(400, "invalid model name") from None
    if entry is not None:
        return entry
    if not directory.settled():
        raise ApiError(503, _STARTING, retry_after=1)
    raise ApiError(404, unknown.replace("{}", name if shown is None else shown))
