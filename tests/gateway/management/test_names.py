"""From a model name of Ollama to a Model."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.base.errors import InvalidName, SourceError
from corral_core.base.names import NAME_PATTERN, canonical_name
from corral_core.model.model import MAX_NAME
from corral_core.model.pod import DNS_LABEL
from corral_server.gateway.management.names import metadata_name, source_of, written_out


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("llama3.2", "ollama://llama3.2"),
        ("Llama3.2:1b", "ollama://Llama3.2:1b"),
        ("library/llama3.2:latest", "ollama://llama3.2"),
        ("someone/model:q4", "ollama://someone/model:q4"),
        ("registry.example:5000/x/y:z", "ollama://registry.example:5000/x/y:z"),
        ("hf.co/org/repo.GGUF:Q4_K_M", "hf://org/repo.GGUF:Q4_K_M"),
        ("huggingface.co/org/repo", "hf://org/repo"),
    ],
)
def test_a_name_means_a_source(name: str, source: str) -> None:
    assert source_of(name) == source


def test_a_host_that_no_source_can_have_is_an_error() -> None:
    with pytest.raises(SourceError):
        source_of("under_score:99999/x/y")


def test_a_name_and_its_other_spellings_have_one_readable_metadata_name() -> None:
    names = {metadata_name(name) for name in ("llama3.2", "LLAMA3.2:latest", "registry.ollama.ai/library/llama3.2")}
    assert len(names) == 1
    assert names.pop().startswith("llama3-2-")


def test_names_that_differ_in_punctuation_have_different_metadata_names() -> None:
    assert metadata_name("a.b") != metadata_name("a-b") != metadata_name("a_b")


@given(st.from_regex(re.compile(NAME_PATTERN, re.ASCII), fullmatch=True))
def test_every_name_has_a_valid_metadata_name(name: str) -> None:
    try:
        canonical_name(name)
    except InvalidName:
        return  # longer than any lookup allows
    made = metadata_name(name)
    assert len(made) <= MAX_NAME
    assert re.fullmatch(DNS_LABEL, made)


def test_patterns_see_the_registry_of_a_source() -> None:
    assert written_out("ollama://llama3.2") == "ollama://registry.ollama.ai/library/llama3.2:latest"
    assert written_out("hf://org/repo") == "hf://org/repo"
