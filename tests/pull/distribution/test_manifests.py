from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.base.errors import SourceError
from corral_server.pull.distribution.manifests import MAX_LAYERS, Descriptor, Index, Manifest, parse_manifest

DIGEST = f"sha256:{'0' * 64}"
LAYER = {"mediaType": "application/x", "digest": DIGEST, "size": 3}


def _parsed(data: object) -> Manifest | Index:
    return parse_manifest(json.dumps(data).encode(), digest=DIGEST)


def _layer(**fields: object) -> Descriptor:
    manifest = _parsed({"layers": [LAYER | fields]})
    assert isinstance(manifest, Manifest)
    return manifest.layers[0]


def test_manifest() -> None:
    manifest = _parsed({"schemaVersion": 2, "artifactType": "a/b", "config": LAYER, "layers": [LAYER, LAYER]})
    assert isinstance(manifest, Manifest)
    assert (manifest.digest, manifest.artifact_type, len(manifest.layers)) == (DIGEST, "a/b", 2)
    assert manifest.config == Descriptor("application/x", DIGEST, 3)
    assert manifest.layers[0].sha256 == "0" * 64


def test_former_artifact_manifest_has_blobs() -> None:
    manifest = _parsed({"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": [LAYER]})
    assert isinstance(manifest, Manifest)
    assert len(manifest.layers) == 1


@pytest.mark.parametrize(
    ("annotations", "path"),
    [
        ({"org.cncf.model.filepath": "a/b.gguf", "org.opencontainers.image.title": "c"}, "a/b.gguf"),
        ({"org.opencontainers.image.title": "./c.gguf"}, "c.gguf"),
        ({"org.cncf.model.file.metadata+json": '{"name": "d.gguf", "size": 5}'}, "d.gguf"),
        ({"org.cncf.model.file.metadata+json": "{"}, ""),
        ({"org.opencontainers.image.title": "."}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_path_of_a_layer(annotations: object, path: str) -> None:
    assert _layer(annotations=annotations).path == path


@pytest.mark.parametrize(
    "path", ["../x.gguf", "a/../../x", "/etc/passwd", "a\nb", "x" * 2000, 5, "a\x00b", "\u202egpj.gguf", "a/\x1b[2J"]
)
def test_path_that_leaves_the_artifact_or_hides_is_refused(path: object) -> None:
    with pytest.raises(SourceError, match=r"layers\[0\]"):
        _layer(annotations={"org.cncf.model.filepath": path})


@pytest.mark.parametrize("size", [-1, 2**44 + 1, 2**70, 1.5, "3", None, True])
def test_size_out_of_bounds_is_refused(size: object) -> None:
    with pytest.raises(SourceError, match=r"size|64 bits"):
        _layer(size=size)


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:", f"sha256:{'0' * 63}", f"sha256:{'G' * 64}", f"sha512:{'0' * 128}", "sha256:../../x", None, 5],
)
def test_invalid_digest_is_refused(digest: object) -> None:
    with pytest.raises(SourceError, match="digest"):
        _layer(digest=digest)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ([], "not a JSON object"),
        ({}, "layers or manifests"),
        ({"layers": [], "manifests": []}, "layers or manifests"),
        ({"layers": {}}, "list"),
        ({"layers": [5]}, "object"),
        ({"layers": [LAYER] * (MAX_LAYERS + 1)}, f"{MAX_LAYERS + 1} layers"),
        ({"manifests": [LAYER] * 5000}, "5000 manifests"),
        ({"schemaVersion": 1, "fsLayers": []}, "schema version 1"),
        ({"layers": [], "config": 5}, "config"),
        ({"manifests": [LAYER | {"platform": 5}]}, "platform"),
    ],
)
def test_invalid_manifest_is_refused(data: object, text: str) -> None:
    with pytest.raises(SourceError, match=text):
        _parsed(data)


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[" * 100_000, b'{"layers": ' * 50_000, b"9" * 100_000, b" " * 5_000_000]
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(SourceError, match="the manifest is not valid"):
        parse_manifest(body, digest=DIGEST)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*LAYER, "layers", "annotations"]), inner)
    ),
)


@given(JSON)
def test_any_json_is_parsed_or_refused(value: object) -> None:
    for data in (value, {"layers": [value]}, {"layers": [LAYER | {"annotations": value}]}, {"manifests": [value]}):
        try:
            _parsed(data)
        except SourceError:
            continue


def _index(*entries: dict[str, object]) -> str:
    found = _parsed({"manifests": [LAYER | entry for entry in entries]})
    assert isinstance(found, Index)
    return found.choose("arm64").digest[-1]


def _entry(number: int, **fields: object) -> dict[str, object]:
    return {"digest": f"sha256:{'0' * 63}{number}"} | fields


def test_index_prefers_the_platform_then_artifacts_then_other_platforms() -> None:
    amd64 = _entry(1, platform={"os": "linux", "architecture": "amd64"})
    arm64 = _entry(2, platform={"os": "linux", "architecture": "arm64"})
    windows = _entry(3, platform={"os": "windows", "architecture": "arm64"})
    artifact = _entry(4)
    assert _index(windows, amd64, artifact, arm64) == "2"
    assert _index(windows, amd64, artifact) == "4"
    assert _index(windows, amd64) == "1"
    assert _index(windows) == "3"


def test_attestations_of_an_index_are_not_chosen() -> None:
    attestation = _entry(
        1,
        platform={"os": "unknown", "architecture": "unknown"},
        annotations={"vnd.docker.reference.type": "attestation-manifest"},
    )
    assert _index(attestation, _entry(2)) == "2"
    with pytest.raises(SourceError, match="no manifest"):
        _index(attestation)
