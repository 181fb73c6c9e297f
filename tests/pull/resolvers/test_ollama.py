from __future__ import annotations

import json

import pytest

from corral_core.base.errors import SourceError
from corral_core.contracts.source_defaults import MAX_LICENSES, MAX_TEXT, NO_DEFAULTS, SourceDefaults, SourceMessage
from corral_core.sources.forms import OciSource, OllamaSource
from corral_server.pull.credentials import NO_CREDENTIALS
from corral_server.pull.http_requests import HttpResponse
from corral_server.pull.remote_files import FileRole, HttpLocation, ResolvedSource
from corral_server.pull.resolvers.ollama import OllamaResolver
from tests.pull.fake_registry import FakeRegistry, Json, Request, response, sha256

SOURCE = OllamaSource(
    "ollama://registry.example/library/smollm2:135m", "registry.example", "library", "smollm2", "135m"
)
LAYER = "application/vnd.ollama.image"
CONFIG = {"model_format": "gguf", "model_family": "llama", "architecture": "amd64", "os": "linux", "rootfs": {}}


def _layer(http: FakeRegistry, kind: str, content: bytes | str) -> Json:
    data = content.encode() if isinstance(content, str) else content
    return http.add_blob(data, f"{LAYER}.{kind}")


def _push(http: FakeRegistry, *layers: tuple[str, bytes | str], config: object = CONFIG) -> str:
    """Push a model as tag 135m, as ``ollama push`` does."""
    blob = http.add_blob(json.dumps(config).encode(), "application/vnd.docker.container.image.v1+json")
    return http.add_manifest("135m", {"config": blob, "layers": [_layer(http, *layer) for layer in layers]})


def _resolve(http: FakeRegistry, *, pin: str = "") -> ResolvedSource:
    return OllamaResolver(http, NO_CREDENTIALS).resolve(SOURCE, pin=pin)


def _names(resolved: ResolvedSource) -> list[tuple[str, FileRole]]:
    return [(file.name, file.role) for file in resolved.files]


def _defaults(*layers: tuple[str, bytes | str]) -> SourceDefaults:
    http = FakeRegistry()
    _push(http, ("model", b"GGUF"), *layers)
    return _resolve(http).defaults


def test_model_is_one_file_with_size_digest_and_pin() -> None:
    http = FakeRegistry()
    digest = _push(http, ("model", b"GGUF weights"))
    resolved = _resolve(http)
    assert (resolved.uri, resolved.pin, resolved.size) == (SOURCE.uri, digest, 12)
    (file,) = resolved.files
    assert (file.name, file.role, file.archive) == ("smollm2-135m.gguf", FileRole.WEIGHTS, "")
    assert f"sha256:{file.sha256}" == sha256(b"GGUF weights")
    assert isinstance(file.location, HttpLocation)
    assert file.location.url == f"https://registry.example/v2/library/smollm2/blobs/sha256:{file.sha256}"
    assert resolved.defaults == NO_DEFAULTS


def test_requests_name_a_version_of_ollama() -> None:
    http = FakeRegistry()
    _push(http, ("model", b"GGUF"))
    location = _resolve(http).files[0].location
    assert isinstance(location, HttpLocation)
    for headers in [*(request.headers for request in http.requests), location.headers]:
        assert headers["User-Agent"].startswith("ollama/")


def test_manifest_is_requested_in_the_one_format_that_ollama_accepts() -> None:
    http = FakeRegistry()
    _push(http, ("model", b"GGUF"))
    _resolve(http)
    assert http.requests[0].headers["Accept"] == "application/vnd.docker.distribution.manifest.v2+json"


def test_weights_are_not_requested() -> None:
    http = FakeRegistry()
    _push(http, ("model", b"GGUF weights"), ("license", "text"))
    _resolve(http)
    assert not [request for request in http.requests if sha256(b"GGUF weights") in request.url]


def test_projector_and_adapters_are_files() -> None:
    http = FakeRegistry()
    _push(http, ("model", b"GGUF1"), ("projector", b"GGUF2"), ("adapter", b"GGUF3"), ("adapter", b"GGUF4"))
    assert _names(_resolve(http)) == [
        ("smollm2-135m.gguf", FileRole.WEIGHTS),
        ("mmproj-smollm2-135m.gguf", FileRole.PROJECTOR),
        ("smollm2-135m-adapter.gguf", FileRole.ADAPTER),
        ("smollm2-135m-adapter-2.gguf", FileRole.ADAPTER),
    ]


def test_several_model_layers_are_parts_of_a_split_file() -> None:
    http = FakeRegistry()
    _push(http, ("model", b"GGUF1"), ("model", b"GGUF2"))
    resolved = _resolve(http)
    assert _names(resolved) == [
        ("smollm2-135m-00001-of-00002.gguf", FileRole.WEIGHTS),
        ("smollm2-135m-00002-of-00002.gguf", FileRole.WEIGHTS),
    ]
    assert [f"sha256:{file.sha256}" for file in resolved.files] == [sha256(b"GGUF1"), sha256(b"GGUF2")]


def test_layers_of_text_become_defaults() -> None:
    assert _defaults(
        ("license", "License 1"),
        ("template", "{{ .Prompt }}"),
        ("system", "Be brief."),
        ("params", '{"stop": ["<|im_end|>"], "temperature": 0.2, "num_ctx": 4096, "penalize_newline": true}'),
        ("messages", '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]'),
        ("license", "License 2"),
    ) == SourceDefaults(
        template="{{ .Prompt }}",
        system="Be brief.",
        parameters={"stop": ["<|im_end|>"], "temperature": 0.2, "num_ctx": 4096, "penalize_newline": True},
        messages=(SourceMessage("user", "Hi"), SourceMessage("assistant", "Hello")),
        licenses=("License 1", "License 2"),
    )


def test_prompt_is_the_former_name_of_the_template() -> None:
    assert _defaults(("prompt", "{{ .Prompt }}")).template == "{{ .Prompt }}"


def test_embed_and_unknown_layers_are_ignored() -> None:
    http = FakeRegistry()
    _push(http, ("model", b"GGUF"), ("embed", "x"), ("draft", "x"), ("new", "x"))
    assert len(_resolve(http).files) == 1


def test_null_parameters_and_messages_are_absent() -> None:
    defaults = _defaults(("params", '{"seed": null}'), ("messages", "null"))
    assert (defaults.parameters, defaults.messages) == ({}, ())


@pytest.mark.parametrize(
    ("kind", "content", "text"),
    [
        ("params", "[]", "parameters"),
        ("params", "{", "parameters"),
        ("params", '{"stop": {"a": 1}}', "'stop'"),
        ("params", '{"stop": [1]}', "'stop'"),
        ("params", '{"temperature": NaN}', "parameters"),
        ("params", json.dumps({f"p{number}": 1 for number in range(200)}), "200 parameters"),
        ("params", json.dumps({"x" * 100: 1}), "parameter"),
        ("params", json.dumps({"stop": "x" * 5000}), "'stop'"),
        ("messages", "{}", "messages"),
        ("messages", '[{"role": "root", "content": "x"}]', "role"),
        ("messages", json.dumps([{"role": "user", "content": ""}] * 300), "messages"),
        ("template", b"\xff\xfe", "UTF-8"),
        ("system", "x" * (MAX_TEXT + 1), "characters"),
        ("template", "x" * (4 * MAX_TEXT + 1), "at most"),
    ],
)
def test_invalid_text_is_refused(kind: str, content: bytes | str, text: str) -> None:
    with pytest.raises(SourceError, match=text):
        _defaults((kind, content))


def test_licenses_are_bounded() -> None:
    licenses = [("license", f"License {number}") for number in range(MAX_LICENSES + 3)]
    too_long = ("license", "x" * (MAX_TEXT + 5)), ("license", "y" * (4 * MAX_TEXT + 1))
    defaults = _defaults(*too_long, ("license", b"\xff"), *licenses)
    assert len(defaults.licenses) == MAX_LICENSES
    assert max(map(len, defaults.licenses)) == MAX_TEXT
    assert SourceDefaults.from_json(defaults.to_json()) == defaults


@pytest.mark.parametrize(
    ("layers", "config", "text"),
    [
        ([], {"remote_host": "https://ollama.com:443", "remote_model": "gpt-oss:120b"}, "cloud"),
        ([("json", "{}"), ("tensor", b"x")], {"model_format": "safetensors"}, "MLX"),
        ([("tensor", b"x")], {}, "MLX"),
        ([("license", "x")], CONFIG, "no model layer; it has license"),
        ([], CONFIG, "no layers"),
    ],
)
def test_models_without_gguf_weights_are_refused(
    layers: list[tuple[str, bytes | str]], config: object, text: str
) -> None:
    http = FakeRegistry()
    _push(http, *layers, config=config)
    with pytest.raises(SourceError, match=rf"^source 'ollama://registry\.example/.*{text}"):
        _resolve(http)


def test_configuration_that_is_not_an_object_is_refused() -> None:
    http = FakeRegistry()
    _push(http, ("model", b"GGUF"), config=[])
    with pytest.raises(SourceError, match="configuration"):
        _resolve(http)


def test_manifest_without_configuration() -> None:
    http = FakeRegistry()
    http.add_manifest("135m", {"layers": [_layer(http, "model", b"GGUF")]})
    assert len(_resolve(http).files) == 1


def test_too_many_layers_of_text_are_refused_before_they_are_requested() -> None:
    http = FakeRegistry()
    _push(http, ("model", b"GGUF"), *[("license", f"{number}") for number in range(100)])
    with pytest.raises(SourceError, match="100 layers of text"):
        _resolve(http)
    assert len(http.requests) == 2


def test_message_of_412_is_shown() -> None:
    def intercept(request: Request) -> HttpResponse:
        return response(412, request.url, {"errors": [{"code": "X", "message": "requires a newer version of Ollama"}]})

    with pytest.raises(SourceError, match=r"status 412 .*requires a newer version of Ollama"):
        _resolve(FakeRegistry(intercept=intercept))


def test_pin_selects_the_earlier_manifest_after_the_tag_moved() -> None:
    http = FakeRegistry()
    first = _push(http, ("model", b"GGUF1"))
    assert _resolve(http, pin=first).pin == first
    second = _push(http, ("model", b"GGUF2"))
    assert _resolve(http).pin == second
    assert _resolve(http, pin=first).pin == first


def test_pinned_manifest_is_found_as_a_blob() -> None:
    http = FakeRegistry()
    first = _push(http, ("model", b"GGUF1"))
    http.blobs[first] = http.manifests.pop(first)
    _push(http, ("model", b"GGUF2"))
    assert _resolve(http, pin=first).pin == first


def test_pinned_manifest_that_is_gone_is_an_error() -> None:
    http = FakeRegistry()
    first = _push(http, ("model", b"GGUF1"))
    del http.manifests[first]
    _push(http, ("model", b"GGUF2"))
    with pytest.raises(SourceError, match="does not have the pinned version"):
        _resolve(http, pin=first)


def test_other_sources_are_a_programming_error() -> None:
    with pytest.raises(TypeError):
        OllamaResolver(FakeRegistry(), NO_CREDENTIALS).resolve(OciSource("oci://a/b", "a", "b", "latest"))
