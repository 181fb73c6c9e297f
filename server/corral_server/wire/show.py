"""Body of ``/api/show`` and the ``details`` object: the Model's spec, its source's defaults, its weights' metadata.

Both processes use it: the gateway for all Models, also unloaded ones, and the runner for its own. Source:
``GetModelInfo`` in Ollama's ``server/routes.go``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.contracts.source_defaults import NO_DEFAULTS, SourceDefaults, SourceMessage
from corral_core.model.effective_spec import effective_spec, example_messages
from corral_core.model.model import ModelSpec
from corral_core.weights.gguf_details import VerboseMetadata
from corral_core.weights.template_capabilities import with_template

_WANTS_BASENAME = "GitHubCopilotChat/"
"""User agent of clients that expect the requested name in ``model_info``."""

_NAME = "general.name"
"""Key of the metadata that ``model_info`` omits, as Ollama does."""


def timestamp(seconds: float) -> str:
    """Format Unix seconds by RFC 3339 with nanoseconds, UTC."""
    whole, micro = divmod(round(seconds * 1e6), 10**6)  # a float of Unix seconds is exact to about a microsecond
    return f"{datetime.fromtimestamp(whole, tz=UTC):%Y-%m-%dT%H:%M:%S}.{micro:06d}000Z"


def details(metadata: ModelMetadata | None) -> dict[str, object]:
    """Return the ``details`` object of show and ps, with empty strings while the metadata is unknown."""
    return {
        "parent_model": "",
        "format": "gguf",
        "family": metadata.family if metadata else "",
        "families": list(metadata.families) if metadata else None,
        "parameter_size": metadata.parameter_size if metadata else "",
        "quantization_level": metadata.quantization_level if metadata else "",
    }


def show_object(
    spec: ModelSpec,
    metadata: ModelMetadata | None,
    *,
    modified: float,
    defaults: SourceDefaults = NO_DEFAULTS,
    requested_name: str = "",
    system: str = "",
    user_agent: str = "",
    verbose: VerboseMetadata | None = None,
) -> dict[str, object]:
    """Return the body of ``/api/show``.

    ``modified`` is in Unix seconds; ``defaults`` are what the source brings. ``requested_name`` is the requested name;
    ``system``, if any, replaces the Model's. ``model_info`` is always present because integrations fail without it;
    ``verbose`` adds its arrays and ``tensors``.
    """
    examples = example_messages(spec, defaults)
    spec = effective_spec(spec, defaults)
    metadata = with_template(metadata, spec.template) if metadata else None
    template = metadata.template if metadata else spec.template or ""
    system = system or spec.system or ""
    optional = {
        "license": spec.license or "",
        "modelfile": _modelfile(spec, template, system, messages=examples),
        "parameters": "\n".join(f"{name:<30} {value}" for name, value in _parameters(spec)),
        "template": template,
        "system": system,
    }
    basename = requested_name if user_agent.startswith(_WANTS_BASENAME) else ""
    messages = [{"role": message.role, "content": message.content} for message in examples]
    return {
        **{name: text for name, text in optional.items() if text},
        "details": details(metadata),
        **({"messages": messages} if messages else {}),
        "model_info": _model_info(metadata, basename) | (dict(verbose.arrays) if verbose else {}),
        **({"projector_info": dict(metadata.projector_info)} if metadata and metadata.projector_info else {}),
        **({"tensors": verbose.tensors_json()} if verbose else {}),
        "capabilities": list(metadata.capabilities) if metadata else ["completion"],
        "modified_at": timestamp(modified),
    }


def _modelfile(spec: ModelSpec, template: str, system: str, *, messages: Sequence[SourceMessage]) -> str:
    """Return the Model as a Modelfile."""
    lines = [f"FROM {spec.source}"]
    if template:
        lines.append(f"TEMPLATE {_quoted(template)}")
    if system:
        lines.append(f"SYSTEM {_quoted(system)}")
    lines += [f"PARAMETER {name} {_quoted(_plain(value))}" for name, value in _values(spec)]
    if spec.license:
        lines.append(f"LICENSE {_quoted(spec.license)}")
    lines += [f"MESSAGE {message.role} {_quoted(message.content)}" for message in messages]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Quote a value only where the Modelfile parser needs it, as ``quote`` in Ollama's ``parser/parser.go``."""
    if "\n" not in text and text.strip(" ") == text:
        return text
    return f'"""{text}"""' if '"' in text else f'"{text}"'


def _parameters(spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """Yield one pair per line: a list of stop strings becomes several. Strings are quoted, as in Ollama's response."""
    for name, value in _values(spec):
        yield name, json.dumps(value, ensure_ascii=False) if isinstance(value, str) else _plain(value)


def _values(spec: ModelSpec) -> Iterator[tuple[str, object]]:
    for name, value in spec.parameters.items():
        for item in value if isinstance(value, list | tuple) else [value]:
            yield name, item


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return json.dumps(value)
    return f"{value:.12g}" if isinstance(value, int | float) else str(value)


def _model_info(metadata: ModelMetadata | None, basename: str) -> dict[str, object]:
    info: dict[str, object] = {}
    if metadata is not None:
        info = {
            "general.architecture": metadata.family,
            "general.parameter_count": metadata.parameter_count,
            f"{metadata.family}.context_length": metadata.context_length,
            f"{metadata.family}.embedding_length": metadata.embedding_length,
            **{key: value for key, value in metadata.info.items() if key != _NAME},
        }
    return info | ({"general.basename": basename} if basename else {})
