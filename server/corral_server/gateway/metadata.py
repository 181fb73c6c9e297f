"""What the gateway answers by itself about Models, running or cold: tags, show, and OpenAI's list of models.

All of it comes from the directory's Entries; a Model whose weights nobody has read yet is listed without its facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from corral_core.errors import InvalidName
from corral_core.facts import ModelFacts
from corral_core.names import parse_name
from corral_server.gateway.directory import Directory, Entry
from corral_server.wire.errors import ApiError

OWNER = "library"


def timestamp(seconds: float) -> str:
    """RFC 3339 with nanoseconds, UTC."""
    whole, micro = divmod(round(seconds * 1e6), 10**6)  # a float of seconds holds no more than microseconds
    return f"{datetime.fromtimestamp(whole, tz=UTC):%Y-%m-%dT%H:%M:%S}.{micro:06d}000Z"


def details(facts: ModelFacts | None) -> dict[str, object]:
    """The ``details`` object of show and ps."""
    return {
        "parent_model": "",
        "format": "gguf",
        "family": facts.family if facts else "",
        "families": list(facts.families) if facts else None,
        "parameter_size": facts.parameter_size if facts else "",
        "quantization_level": facts.quantization_level if facts else "",
    }


def tags(directory: Directory) -> dict[str, object]:
    """/api/tags: one item for each name of each Model, the newest Model first."""
    entries = sorted(directory.entries(), key=lambda entry: entry.modified, reverse=True)
    return {"models": [_tag(entry, name) for entry in entries for name in entry.names]}


def _tag(entry: Entry, name: str) -> dict[str, object]:
    facts = entry.facts
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


def show(directory: Directory, name: str, *, user_agent: bytes) -> dict[str, object]:
    """/api/show. Raises ApiError for a name that is wrong or unknown."""
    entry = lookup(directory, name, unknown="model '{}' not found", shown=with_tag(name))
    spec, facts = entry.model.spec, entry.facts
    template = facts.template if facts else ""
    optional = {
        "modelfile": _modelfile(entry, template),
        "parameters": _parameters(spec.parameters),
        "template": template,
        "system": spec.system or "",
    }
    return {
        **{key: value for key, value in optional.items() if value},
        "details": details(facts),
        "model_info": _model_info(facts, name if user_agent.startswith(b"GitHubCopilotChat/") else None),
        "capabilities": list(facts.capabilities) if facts else ["completion"],
        "modified_at": timestamp(entry.modified),
    }


def _model_info(facts: ModelFacts | None, basename: str | None) -> dict[str, object]:
    info: dict[str, object] = {}
    if facts is not None:
        info = {
            "general.architecture": facts.family,
            "general.parameter_count": facts.parameter_count,
            f"{facts.family}.context_length": facts.context_length,
            f"{facts.family}.embedding_length": facts.embedding_length,
            **facts.info,
        }
        info.pop("tokenizer.chat_template", None)
    if basename is not None:
        info["general.basename"] = basename
    return info


def _parameters(parameters: Mapping[str, object]) -> str:
    return "\n".join(
        f"{name:<30} {_parameter(item)}"
        for name, value in parameters.items()
        for item in (value if isinstance(value, list | tuple) else [value])
    )


def _parameter(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' if isinstance(value, str) else str(value)


def _modelfile(entry: Entry, template: str) -> str:
    """The Model as a Modelfile would say it."""
    spec = entry.model.spec
    lines = [f"FROM {spec.source}"]
    if template:
        lines.append(f'TEMPLATE """{template}"""')
    if spec.system:
        lines.append(f'SYSTEM """{spec.system}"""')
    for name, value in spec.parameters.items():
        items = value if isinstance(value, list | tuple) else [value]
        lines += [f"PARAMETER {name} {item}" for item in items]
    return "\n".join(lines) + "\n"


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
        raise ApiError(503, "the gateway is starting and does not know all models yet, please try again")
    raise ApiError(404, unknown.replace("{}", name if shown is None else shown))
