"""Capabilities that a chat template implies."""

from __future__ import annotations

import time

import pytest

from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.weights.template_capabilities import template_capabilities, with_template


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ .Prompt }}", ()),
        ("{{ range .Messages }}{{ end }}{{ if .Tools }}{{ end }}", ("tools",)),
        ("{% if tools %}{% endif %}<think></think>", ("tools", "thinking")),
        ("{{ if .Suffix }}{{ .Prompt }}{{ end }}", ("insert",)),
        ("{{ .Prompt }} .Suffix {{ .Suffixes }} }.Suffix", ()),
        ("Suffix {{ .Prompt }}", ()),
    ],
)
def test_template_capabilities(template: str, expected: tuple[str, ...]) -> None:
    assert template_capabilities(template) == expected


def test_other_template_replaces_the_capabilities() -> None:
    metadata = ModelMetadata(
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
    other = with_template(metadata, "{{ .Suffix }}")
    assert (other.template, other.capabilities) == ("{{ .Suffix }}", ("completion", "vision", "insert"))
    assert with_template(metadata, None) is metadata


def test_the_time_is_in_proportion_to_the_length() -> None:
    """A template of braces took 30 s, in the gateway as well."""
    start = time.thread_time()
    assert template_capabilities("{" * 256_000) == template_capabilities("{{.Suffixes" * 23_000) == ()
    assert time.thread_time() - start < 1
