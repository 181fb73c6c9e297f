"""What a chat template tells of a model, whether it comes out of the weights or out of the Model.

Jinja (in a GGUF) and Go's templates (in a Modelfile) use the same words for tools and the same marks for thinking.
"""

from __future__ import annotations

import re
from dataclasses import replace

from corral_core.facts import ModelFacts

_THINKING = (
    ("<think>", "</think>"),
    ("<|channel|>", "analysis"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
"""What the templates of models that think have: two tags in most families, a channel in gpt-oss."""
_TOOLS = ("tools", "tool_call", ".Tools", ".ToolCalls")
_SUFFIX = re.compile(r"\{\{[^}]*\.Suffix\b")
_FROM_TEMPLATE = frozenset({"tools", "thinking", "insert"})


def template_capabilities(template: str) -> tuple[str, ...]:
    """``tools``, ``thinking`` and ``insert``, as far as the template knows of them."""
    found = {
        "tools": any(word in template for word in _TOOLS),
        "thinking": any(first in template and second in template for first, second in _THINKING),
        "insert": _SUFFIX.search(template) is not None,
    }
    return tuple(name for name, present in found.items() if present)


def with_template(facts: ModelFacts, template: str | None) -> ModelFacts:
    """The facts of a model that is prompted with this template in place of its own; None leaves them as they are."""
    if template is None:
        return facts
    own = tuple(name for name in facts.capabilities if name not in _FROM_TEMPLATE)
    return replace(facts, template=template, capabilities=own + template_capabilities(template))
