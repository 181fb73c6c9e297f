"""Capabilities that a chat template implies, from the GGUF or from the Model.

Jinja templates (GGUF) and Go templates (Modelfile) use the same variables for tools and the same tags for thinking. As
Ollama's ``server/images.go`` (``Capabilities``).
"""

from __future__ import annotations

import re
from dataclasses import replace

from corral_core.contracts.model_metadata import ModelMetadata

_THINKING = (
    ("<think>", "</think>"),
    ("<|channel|>", "analysis"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
"""Markers in the templates of thinking models: a pair of tags in most families, a channel in gpt-oss."""
_TOOL_WORDS = ("tools", "tool_call", ".Tools", ".ToolCalls")
_SUFFIX = re.compile(r"\.Suffix\b")
_FROM_TEMPLATE = frozenset({"tools", "thinking", "insert"})


def template_capabilities(template: str) -> tuple[str, ...]:
    """Return those of ``tools``, ``thinking`` and ``insert`` that the template supports."""
    found = {
        "tools": any(word in template for word in _TOOL_WORDS),
        "thinking": any(first in template and second in template for first, second in _THINKING),
        "insert": _has_suffix(template),
    }
    return tuple(name for name, present in found.items() if present)


def _has_suffix(template: str) -> bool:
    """Return whether a tag has ``.Suffix``.

    In one pass, because the gateway reads the templates of all Models: as one expression, ``{{[^}]*.Suffix`` takes the
    square of the length of a template of braces.
    """
    openings = ((part, part.find("{{")) for part in template.split("}"))
    return any(at >= 0 and _SUFFIX.search(part, at) for part, at in openings)


def with_template(metadata: ModelMetadata, template: str | None) -> ModelMetadata:
    """Return the metadata with this template instead of the model's own; None keeps the latter."""
    if template is None:
        return metadata
    own = tuple(name for name in metadata.capabilities if name not in _FROM_TEMPLATE)
    return replace(metadata, template=template, capabilities=own + template_capabilities(template))
