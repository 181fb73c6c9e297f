"""Hosts of sources, and the entries of an installation that match them."""

from __future__ import annotations

import pytest

from corral_core.sources.forms import LocalSource
from corral_core.sources.hosts import HOST_PATTERN, matches_host, source_host
from corral_core.sources.uri import parse_source


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("ollama://llama3.2:1b", "registry.ollama.ai"),
        ("ollama://hf.co/organization/model:Q4_K_M", "hf.co"),
        ("ollama://registry.example.com:5000/team/model", "registry.example.com:5000"),
        ("hf://organization/model", "huggingface.co"),
        ("modelscope://organization/model", "modelscope.cn"),
        ("https://files.example.com:8443/model.gguf", "files.example.com:8443"),
        ("oci://docker.io/ai/model", "docker.io"),
        ("s3://bucket/model.gguf", "s3"),
        ("gs://bucket/model.gguf", "gs"),
        ("az://container/model.gguf", "az"),
    ],
)
def test_each_source_has_a_host(uri: str, host: str) -> None:
    source = parse_source(uri)
    assert not isinstance(source, LocalSource)
    assert source_host(source) == host
    assert HOST_PATTERN.fullmatch(host)
    assert matches_host(host, host)


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        ("example.com", "example.com:5000", True),
        ("example.com:5000", "example.com", False),
        ("example.com:5000", "example.com:5001", False),
        ("example.com", "files.example.com", False),
        ("*.example.com", "files.example.com:8443", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "example.com.evil.net", False),
        ("*.example.com", "notexample.com", False),
        ("*.example.com:8443", "files.example.com:8443", True),
        ("*.example.com:8443", "files.example.com", False),
    ],
)
def test_patterns(pattern: str, host: str, expected: bool) -> None:
    assert HOST_PATTERN.fullmatch(pattern)
    assert matches_host(pattern, host) == expected
