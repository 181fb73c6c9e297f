"""Whatever a registry answers, resolving ends with files that are safe to store, or with an error for users."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral_core.base.errors import CorralError, SourceError
from corral_core.contracts.source_defaults import SourceDefaults
from corral_core.sources.forms import OciSource, OllamaSource
from corral_server.pull.credentials import Credentials
from corral_server.pull.http_requests import HttpResponse
from corral_server.pull.remote_files import HttpLocation, RemoteFile, ResolvedSource, Resolver
from corral_server.pull.resolvers.oci import OciResolver
from corral_server.pull.resolvers.ollama import OllamaResolver
from tests.pull.fake_registry import FakeRegistry, Request, sha256, tar_bytes

OLLAMA = OllamaSource("ollama://registry.example/team/model", "registry.example", "team", "model", "latest")
OCI = OciSource("oci://registry.example/team/model", "registry.example", "team/model", "latest")
LINK_LOCAL = "169.254.169.254"
CREDENTIALS = Credentials(username="person", password="hidden-password")

BLOBS = (
    b"",
    b"{}",
    b"[]",
    b"null",
    b"GGUF" + bytes(600),
    b"\xff" * 700,
    tar_bytes({"models/m.gguf": b"GGUF" + bytes(600), "../x.gguf": b"GGUF"}),
    b'{"stop": ["x"]}',
    b'{"remote_host": 5, "model_format": ["safetensors"]}',
    b"[" * 5000,
)
TEXT = st.text(max_size=20) | st.sampled_from(
    ["../../x", "/etc/x", "m.gguf", "m-00001-of-00002.gguf", "mmproj.gguf", "\x00"]
)
MEDIA_TYPE = st.sampled_from(
    [
        *(f"application/vnd.ollama.image.{kind}" for kind in ("model", "params", "messages", "system", "license")),
        *(f"application/vnd.ollama.image.{kind}" for kind in ("projector", "adapter", "template", "tensor")),
        *(f"application/vnd.docker.ai.{kind}" for kind in ("gguf.v3", "mmproj", "license", "chat.template.jinja")),
        *(f"application/vnd.cncf.model.weight.v1.{kind}" for kind in ("raw", "tar", "tar+gzip", "tar+zstd", "tar+x")),
        *(f"application/vnd.kitops.modelkit.{kind}.v1.tar" for kind in ("model", "modelpart")),
        *(f"application/vnd.oci.image.layer.v1.tar{kind}" for kind in ("", "+gzip", "+zstd", "+encrypted")),
        "application/octet-stream",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT, lambda inner: st.lists(inner, max_size=3)
)
PATHS = st.sampled_from(
    ["m.gguf", "a/m.gguf", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "mmproj.gguf", "LICENSE", "t.jinja", "x"]
)
ANNOTATIONS = st.dictionaries(
    st.sampled_from(["org.cncf.model.filepath", "org.opencontainers.image.title"]), PATHS, max_size=1
)


@st.composite
def descriptors(draw: st.DrawFn) -> dict[str, object]:
    blob = draw(st.sampled_from(BLOBS))
    valid: dict[str, object] = {"mediaType": draw(MEDIA_TYPE), "digest": sha256(blob), "size": len(blob)}
    changed: dict[str, object] = {}
    if draw(st.integers(0, 9)) == 0:
        changed = draw(st.dictionaries(st.sampled_from(["mediaType", "digest", "size"]), JSON, max_size=1))
    annotations = draw(ANNOTATIONS if draw(st.integers(0, 9)) else st.dictionaries(TEXT, TEXT | JSON, max_size=2))
    return valid | changed | {"annotations": annotations}


MANIFESTS = st.fixed_dictionaries(
    {"layers": st.lists(descriptors(), max_size=5)},
    optional={"config": descriptors(), "artifactType": TEXT},
)
CHALLENGES = st.sampled_from(
    [
        "",
        "Basic",
        'Bearer realm="https://registry.example/v2/x/manifests/latest"',
        f'Bearer realm="https://{LINK_LOCAL}/"',
        'Bearer realm="http://registry.example/"',
        "Bearer realm=",
        '"',
    ]
)


def _never_connected(request: Request) -> HttpResponse:
    """Refuse like ``HttpClient``, which a test of its own shows."""
    raise SourceError(f"{request.url} is never connected to")


def _safe(file: RemoteFile) -> bool:
    assert isinstance(file.location, HttpLocation)
    named = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,240}", file.name) is not None
    return named and ".." not in file.member and file.location.url.startswith("https://registry.example/v2/")


def _check(http: FakeRegistry, resolver: Resolver, source: object) -> None:
    try:
        resolved, text = resolver.resolve(source), ""
    except CorralError as error:
        resolved, text = ResolvedSource(OCI.uri, "", ()), str(error)
    assert len(text) < 2000
    assert "hidden-password" not in text
    names = [file.name for file in resolved.files]
    assert len(set(names)) == len(names)
    assert all(map(_safe, resolved.files))
    assert SourceDefaults.from_json(json.loads(json.dumps(resolved.defaults.to_json()))) == resolved.defaults
    own = {"registry.example"} if isinstance(source, OllamaSource) else {"registry.example", LINK_LOCAL}
    assert {request.url.split("/")[2] for request in http.requests} <= own


@pytest.mark.parametrize("scheme", ["ollama", "oci"])
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(manifest=MANIFESTS, ranges=st.booleans(), challenge=CHALLENGES | st.none())
def test_any_manifest(scheme: str, manifest: dict[str, object], ranges: bool, challenge: str | None) -> None:
    def intercept(request: Request) -> HttpResponse | None:
        if challenge is None or request.headers.get("Authorization"):
            return None
        return HttpResponse(401, request.url, {"www-authenticate": challenge}, b"{}")

    http = FakeRegistry(ranges=ranges, intercept=intercept, others={LINK_LOCAL: _never_connected})
    http.blobs = {sha256(blob): blob for blob in BLOBS}
    http.manifests["latest"] = json.dumps(manifest).encode()
    resolver: Resolver = (OllamaResolver if scheme == "ollama" else OciResolver)(http, CREDENTIALS)
    _check(http, resolver, OLLAMA if scheme == "ollama" else OCI)


@pytest.mark.parametrize("scheme", ["ollama", "oci"])
@given(
    status=st.sampled_from([200, 204, 206, 301, 400, 401, 403, 404, 412, 418]),
    headers=st.dictionaries(
        st.sampled_from(["www-authenticate", "docker-content-digest", "content-range", "content-type"]),
        CHALLENGES | TEXT,
    ),
    body=st.binary(max_size=50) | JSON.map(lambda value: json.dumps(value).encode()),
)
def test_any_response(scheme: str, status: int, headers: dict[str, str], body: bytes) -> None:
    def intercept(request: Request) -> HttpResponse | None:
        return None if LINK_LOCAL in request.url else HttpResponse(status, request.url, headers, body)

    http = FakeRegistry(intercept=intercept, others={LINK_LOCAL: _never_connected})
    resolver: Resolver = (OllamaResolver if scheme == "ollama" else OciResolver)(http, CREDENTIALS)
    _check(http, resolver, OLLAMA if scheme == "ollama" else OCI)
