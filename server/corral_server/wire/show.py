"""What Ollama tells about one model: ``/api/show`` and the ``details`` object, from the Model and its weights' facts.

The gateway answers with it for every Model, also cold ones; a runner answers for its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from corral_core.facts import ModelFacts
from corral_core.gguf_verbose import Verbose
from corral_core.model import ModelSpec
from corral_core.template_facts import with_template

_WANTS_BASENAME = "GitHubCopilotChat/"
"""Clients that name themselves so look for the name that they asked for in ``model_info``."""

_NAME = "general.name"
"""Ollama leaves it out: a Model has names of its own."""


def timestamp(seconds: float) -> str:
    """RFC 3339 with nanoseconds, UTC."""
    whole, micro = divmod(round(seconds * 1e6), 10**6)  # a float of seconds holds no more than microseconds
    return f"{datetime.fromtimestamp(whole, tz=UTC):%Y-%m-%dT%H:%M:%S}.{micro:06d}000Z"


def details(facts: ModelFacts | None) -> dict[str, object]:
    """The ``details`` object of show and ps; empty texts while nobody has read the weights yet."""
    return {
        "parent_model": "",
        "format": "gguf",
        "family": facts.family if facts else "",
        "families": list(facts.families) if facts else None,
        "parameter_size": facts.parameter_size if facts else "",
        "quantization_level": facts.quantization_level if facts else "",
    }


def show_object(
    spec: ModelSpec,
    facts: ModelFacts | None,
    *,
    modified: float,
    asked: str = "",
    system: str = "",
    user_agent: str = "",
    verbose: Verbose | None = None,
) -> dict[str, object]:
    """The body of ``/api/show``. ``asked`` is the name in the request, ``system`` what it puts in place of the Model's.

    ``model_info`` is always there, since integrations fail without it. With ``verbose`` its arrays are, and tensors.
    """
    facts = with_template(facts, spec.template) if facts else None
    template = facts.template if facts else spec.template or ""
    system = system or spec.system or ""
    optional = {
        "license": spec.license or "",
        "modelfile": _modelfile(spec, template, system),
        "parameters": "\n".join(f"{name:<30} {value}" for name, value in _parameters(spec)),
        "template": template,
        "system": system,
    }
    basename = asked if user_agent.startswith(_WANTS_BASENAME) else ""
    return {
        **{name: text for name, text in optional.items() if text},
        "details": details(facts),
        "model_info": _model_info(facts, basename) | (dict(verbose.arrays) if verbose else {}),
        **({"tensors": verbose.tensors_json()} if verbose else {}),
        "capabilities": list(facts.capabilities) if facts else ["completion"],
        "modified_at": timestamp(modified),
    }


def _modelfile(spec: ModelSpec, template: str, system: str) -> str:
    """The Model as a Modelfile would say it."""
    lines = [f"FROM {spec.source}"]
    if template:
        lines.append(f"TEMPLATE {_quoted(template)}")
    if system:
        lines.append(f"SYSTEM {_quoted(system)}")
    lines += [f"PARAMETER {name} {_quoted(_plain(value))}" for name, value in _values(spec)]
    if spec.license:
        lines.append(f"LICENSE {_quoted(spec.license)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """As Ollama writes it into a Modelfile: in quotes only where it would be read wrongly without them."""
    if "\n" not in text and text.strip(" ") == text:
        return text
    return f'"""{text}"""' if '"' in text else f'"{text}"'


def _parameters(spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """One pair for every line: a list of stop strings becomes several. Texts are quoted, as in Ollama's answer."""
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


def _model_info(facts: ModelFacts | None, basename: str) -> dict[str, object]:
    info: dict[str, object] = {}
    if facts is not None:
        info = {
            "general.architecture": facts.family,
            "general.parameter_count": facts.parameter_count,
            f"{facts.family}.context_length": facts.context_length,
            f"{facts.family}.embedding_length": facts.embedding_length,
            **{key: value for key, value in facts.info.items() if key != _NAME},
        }
    return info | ({"general.basename": basename} if basename else {})
