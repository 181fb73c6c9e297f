"""What a template tells of a model."""

from __future__ import annotations

import pytest

from corral_core.facts import ModelFacts
from corral_core.template_facts import template_capabilities, with_template


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ .Prompt }}", ()),
        ("{{ range .Messages }}{{ end }}{{ if .Tools }}{{ end }}", ("tools",)),
        ("{% if tools %}{% endif %}<think></think>", ("tools", "thinking")),
        ("{{ if .Suffix }}{{ .Prompt }}{{ end }}", ("insert",)),
        ("Suffix {{ .Prompt }}", ()),
    ],
)
def test_the_words_of_a_template(template: str, expected: tuple[str, ...]) -> None:
    assert template_capabilities(template) == expected


def test_another_template_replaces_what_the_own_one_told() -> None:
    facts = ModelFacts(
        size=1,
        family="llama",
        families=("llama",),
        parameter_size="1B",
        parameter_count=1,
        quantization_level="F16",
        context_length=1,
        embedding_length=1,
        capabilities=("completion", "vision", "tools", "thinking"),
        template="{{ tools }}<think></think>",
    )
    other = with_template(facts, "{{ .Suffix }}")
    assert (other.template, other.capabilities) == ("{{ .Suffix }}", ("completion", "vision", "insert"))
    assert with_template(facts, None) is facts
