from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Mapping

import pytest
import zstandard

from corral_core.base.errors import SourceError
from corral_core.contracts.source_defaults import SourceDefaults
from corral_core.sources.forms import OciSource, OllamaSource
from corral_server.pull.credentials import NO_CREDENTIALS
from corral_server.pull.remote_files import Archive, FileRole, HttpLocation, RemoteFile, ResolvedSource
from corral_server.pull.resolvers.oci import OciResolver
from corral_server.pull.resolvers.oci_contents import MAX_LOOKS
from tests.pull.fake_registry import FakeRegistry, Json, sha256, tar_bytes

SOURCE = OciSource("oci://registry.example/team/smollm2:135m", "registry.example", "team/smollm2", "135m")
GGUF = b"GGUF" + os.urandom(2000)
OTHER = b"GGUF" + os.urandom(2000)
MODELPACK = "application/vnd.cncf.model"
DOCKER = "application/vnd.docker.ai"
KITOPS = "application/vnd.kitops.modelkit"
IMAGE = "application/vnd.oci.image.layer.v1"
COMPRESSIONS: Mapping[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    "+gzip": gzip.compress,
    "+zstd": zstandard.compress,
}
ARCHIVES = {"": Archive.TAR, "+gzip": Archive.TAR_GZIP, "+zstd": Archive.TAR_ZSTD}
every_compression = pytest.mark.parametrize("compression", COMPRESSIONS)


class Resolved:
    def __init__(self, resolved: ResolvedSource) -> None:
        self.files = resolved.files
        self.defaults = resolved.defaults
        self.names = [(file.name, file.role) for file in resolved.files]

    @property
    def file(self) -> RemoteFile:
        (file,) = self.files
        return file


def _resolve(
    http: FakeRegistry, *layers: Json, config: str = f"{MODELPACK}.config.v1+json", **fields: object
) -> Resolved:
    blob = http.add_blob(b"{}", config)
    digest = http.add_manifest("135m", {"config": blob, "layers": list(layers)} | fields)
    resolved = OciResolver(http, NO_CREDENTIALS).resolve(SOURCE)
    assert (resolved.uri, resolved.pin) == (SOURCE.uri, digest)
    return Resolved(resolved)


def _image(http: FakeRegistry, *layers: Json) -> Resolved:
    return _resolve(http, *layers, config="application/vnd.oci.image.config.v1+json")


def _refused(text: str, http: FakeRegistry, *layers: Json, image: bool = False) -> None:
    with pytest.raises(SourceError, match=rf"(?s)^source 'oci://registry\.example/.*{text}"):
        (_image if image else _resolve)(http, *layers)


def _check_raw(file: RemoteFile, content: bytes) -> None:
    assert (f"sha256:{file.sha256}", file.size, file.archive) == (sha256(content), len(content), Archive.NONE)


def test_modelpack_with_a_raw_layer() -> None:
    http = FakeRegistry()
    layer = http.add_blob(GGUF, f"{MODELPACK}.weight.v1.raw", path="smollm2.Q4_1.gguf")
    resolved = _resolve(http, layer, artifactType=f"{MODELPACK}.manifest.v1+json")
    assert resolved.names == [("smollm2.Q4_1.gguf", FileRole.WEIGHTS)]
    _check_raw(resolved.file, GGUF)
    assert isinstance(resolved.file.location, HttpLocation)
    assert resolved.file.location.url == f"https://registry.example/v2/team/smollm2/blobs/{sha256(GGUF)}"
    assert not [request for request in http.requests if sha256(GGUF) in request.url]


@every_compression
def test_modelpack_with_a_tar_layer(compression: str) -> None:
    http = FakeRegistry()
    data = COMPRESSIONS[compression](tar_bytes({"weights/": b"", "weights/m.gguf": GGUF}))
    file = _resolve(http, http.add_blob(data, f"{MODELPACK}.weight.v1.tar{compression}", path="weights/m.gguf")).file
    assert (file.name, file.archive, file.member) == ("m.gguf", ARCHIVES[compression], "weights/m.gguf")
    assert file.member_size == len(GGUF)
    assert (f"sha256:{file.sha256}", file.size) == (sha256(data), len(data))


def test_raw_layer_without_a_path_is_recognized_by_its_first_bytes() -> None:
    http = FakeRegistry()
    resolved = _resolve(http, http.add_blob(GGUF, f"{MODELPACK}.weight.v1.raw"))
    assert resolved.names == [("smollm2-135m.gguf", FileRole.WEIGHTS)]


def test_modelpack_with_other_layers() -> None:
    http = FakeRegistry()
    resolved = _resolve(
        http,
        http.add_blob(GGUF, f"{MODELPACK}.weight.v1.raw", path="m.gguf"),
        http.add_blob(OTHER, f"{MODELPACK}.weight.v1.raw", path="mmproj-m-f16.gguf"),
        http.add_blob(b"{}", f"{MODELPACK}.weight.config.v1.raw", path="tokenizer.json"),
        http.add_blob(b"{{ messages }}", f"{MODELPACK}.weight.config.v1.raw", path="chat_template.jinja"),
        http.add_blob(b"Apache", f"{MODELPACK}.doc.v1.raw", path="LICENSE.txt"),
        http.add_blob(b"# Model" * 200, f"{MODELPACK}.doc.v1.raw", path="README.md"),
        http.add_blob(tar_bytes({"x.gguf": b"GGUF"}), f"{MODELPACK}.code.v1.tar"),
    )
    assert resolved.names == [("m.gguf", FileRole.WEIGHTS), ("mmproj-m-f16.gguf", FileRole.PROJECTOR)]
    assert resolved.defaults == SourceDefaults(template="{{ messages }}", licenses=("Apache",))


def test_docker_artifact() -> None:
    http = FakeRegistry()
    resolved = _resolve(
        http,
        http.add_blob(GGUF, f"{DOCKER}.gguf.v3"),
        http.add_blob(OTHER, f"{DOCKER}.mmproj"),
        http.add_blob(b"{{ messages }}", f"{DOCKER}.chat.template.jinja"),
        http.add_blob(b"MIT", f"{DOCKER}.license"),
        config=f"{DOCKER}.model.config.v0.1+json",
    )
    assert resolved.names == [
        ("smollm2-135m.gguf", FileRole.WEIGHTS),
        ("mmproj-smollm2-135m.gguf", FileRole.PROJECTOR),
    ]
    assert resolved.defaults == SourceDefaults(template="{{ messages }}", licenses=("MIT",))


def test_docker_artifact_with_a_file_per_layer() -> None:
    http = FakeRegistry()
    resolved = _resolve(
        http,
        http.add_blob(GGUF, f"{DOCKER}.gguf.v3", path="m.gguf"),
        http.add_blob(b"{}", f"{DOCKER}.model.file", path="config.json"),
        http.add_blob(OTHER, f"{DOCKER}.model.file", path="model.mmproj"),
        config=f"{DOCKER}.model.config.v0.2+json",
    )
    assert resolved.names == [("m.gguf", FileRole.WEIGHTS), ("model.mmproj.gguf", FileRole.PROJECTOR)]


def test_docker_artifact_of_a_split_model() -> None:
    http = FakeRegistry()
    layers = [http.add_blob(GGUF, f"{DOCKER}.gguf.v3"), http.add_blob(OTHER, f"{DOCKER}.gguf.v3")]
    resolved = _resolve(http, *layers)
    assert [file.name for file in resolved.files] == [
        "smollm2-135m-00001-of-00002.gguf",
        "smollm2-135m-00002-of-00002.gguf",
    ]
    _check_raw(resolved.files[1], OTHER)


def test_former_docker_type_of_modelpack() -> None:
    http = FakeRegistry()
    _check_raw(_resolve(http, http.add_blob(GGUF, f"{MODELPACK}.weight.v1.gguf")).file, GGUF)


@every_compression
def test_kitops_modelkit(compression: str) -> None:
    http = FakeRegistry()
    pack = COMPRESSIONS[compression]
    resolved = _resolve(
        http,
        http.add_blob(pack(tar_bytes({"m/": b"", "m/m.gguf": GGUF})), f"{KITOPS}.model.v1.tar{compression}"),
        http.add_blob(pack(tar_bytes({"lora.gguf": OTHER})), f"{KITOPS}.modelpart.v1.tar{compression}"),
        http.add_blob(pack(tar_bytes({"data.gguf": OTHER})), f"{KITOPS}.dataset.v1.tar{compression}"),
        config=f"{KITOPS}.config.v1+json",
    )
    assert resolved.names == [("m.gguf", FileRole.WEIGHTS), ("lora.gguf", FileRole.ADAPTER)]
    assert resolved.files[0].member == "m/m.gguf"


def test_kitops_model_parts_of_a_split_model_are_weights() -> None:
    http = FakeRegistry()
    resolved = _resolve(
        http,
        http.add_blob(tar_bytes({"m-00002-of-00002.gguf": OTHER}), f"{KITOPS}.modelpart.v1.tar"),
        http.add_blob(tar_bytes({"m-00001-of-00002.gguf": GGUF}), f"{KITOPS}.model.v1.tar"),
    )
    assert resolved.names == [
        ("m-00001-of-00002.gguf", FileRole.WEIGHTS),
        ("m-00002-of-00002.gguf", FileRole.WEIGHTS),
    ]


def test_ramalama_artifact_with_detected_media_types() -> None:
    http = FakeRegistry()
    metadata = {"org.cncf.model.file.metadata+json": '{"name": "m.gguf", "mode": 420, "size": 5}'}
    resolved = _resolve(
        http,
        http.add_blob(GGUF, "application/octet-stream", annotations=metadata),
        http.add_blob(b"{{ messages }}", "text/plain; charset=utf-8", path="chat_template.jinja"),
        config="application/vnd.oci.empty.v1+json",
        artifactType=f"{MODELPACK}.manifest.v1+json",
    )
    assert resolved.names == [("m.gguf", FileRole.WEIGHTS)]
    assert resolved.defaults.template == "{{ messages }}"


def test_file_that_oras_pushed_with_the_media_type_of_an_image_layer() -> None:
    http = FakeRegistry()
    title = {"org.opencontainers.image.title": "m.gguf"}
    _check_raw(_resolve(http, http.add_blob(GGUF, f"{IMAGE}.tar", annotations=title)).file, GGUF)


@every_compression
def test_image_with_a_model_in_its_last_layer(compression: str) -> None:
    http = FakeRegistry()
    pack = COMPRESSIONS[compression]
    base = pack(tar_bytes({"etc/passwd": b"root" * 500, "bin/sh": os.urandom(5000)}))
    data = pack(tar_bytes({"./models/": b"", "./models/m.gguf": GGUF}))
    file = _image(
        http, http.add_blob(base, f"{IMAGE}.tar{compression}"), http.add_blob(data, f"{IMAGE}.tar{compression}")
    ).file
    assert (file.name, file.member, file.archive) == ("m.gguf", "models/m.gguf", ARCHIVES[compression])
    assert f"sha256:{file.sha256}" == sha256(data)


def test_image_of_docker_with_a_file_whose_name_has_no_suffix() -> None:
    http = FakeRegistry()
    data = gzip.compress(tar_bytes({"models/smollm/blob": GGUF}))
    file = _image(http, http.add_blob(data, "application/vnd.docker.image.rootfs.diff.tar.gzip")).file
    assert (file.name, file.member, file.archive) == ("blob.gguf", "models/smollm/blob", Archive.TAR_GZIP)


def test_image_with_a_split_model_and_a_projector_in_several_layers() -> None:
    http = FakeRegistry()
    resolved = _image(
        http,
        http.add_blob(tar_bytes({"models/m-00001-of-00002.gguf": GGUF}), f"{IMAGE}.tar"),
        http.add_blob(tar_bytes({"models/m-00002-of-00002.gguf": OTHER, "models/mmproj.gguf": GGUF}), f"{IMAGE}.tar"),
    )
    assert [file.name for file in resolved.files] == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "mmproj.gguf"]


def test_later_layer_of_an_image_replaces_a_file() -> None:
    http = FakeRegistry()
    new = tar_bytes({"models/m.gguf": OTHER})
    layers = [http.add_blob(tar_bytes({"models/m.gguf": GGUF}), f"{IMAGE}.tar"), http.add_blob(new, f"{IMAGE}.tar")]
    assert f"sha256:{_image(http, *layers).file.sha256}" == sha256(new)


@pytest.mark.parametrize(
    "whiteout", ["models/.wh.old.gguf", "models/.wh..wh..opq", ".wh.models", "./models/.wh.old.gguf"]
)
def test_file_that_a_later_layer_of_an_image_deletes(whiteout: str) -> None:
    http = FakeRegistry()
    old = tar_bytes({"models/old.gguf": GGUF})
    new = tar_bytes({"models/new.gguf": OTHER, whiteout: b""})
    resolved = _image(http, http.add_blob(old, f"{IMAGE}.tar"), http.add_blob(new, f"{IMAGE}.tar"))
    assert [file.name for file in resolved.files] == ["new.gguf"]


def test_compressed_layer_with_the_first_part_of_a_split_model_is_expected_to_have_the_others() -> None:
    http = FakeRegistry()
    parts = {f"models/m-0000{number}-of-00002.gguf": b"GGUF" + os.urandom(700_000) for number in (1, 2)}
    resolved = _image(http, http.add_blob(gzip.compress(tar_bytes(parts)), f"{IMAGE}.tar+gzip"))
    assert [file.member for file in resolved.files] == list(parts)
    assert len({file.sha256 for file in resolved.files}) == 1


def test_number_of_expected_parts_is_bounded() -> None:
    http = FakeRegistry()
    data = gzip.compress(tar_bytes({"models/m-00001-of-99999.gguf": b"GGUF" + os.urandom(700_000)}))
    _refused("not complete", http, http.add_blob(data, f"{IMAGE}.tar+gzip"), image=True)


def test_uncompressed_layer_is_listed_without_reading_its_files() -> None:
    http = FakeRegistry()
    data = tar_bytes({"usr/lib/large": bytes(5_000_000), "models/m.gguf": GGUF})
    assert _image(http, http.add_blob(data, f"{IMAGE}.tar")).file.member == "models/m.gguf"
    assert len(http.requests) <= 5


def test_compressed_layer_whose_beginning_has_no_model_is_pulled_with_a_pattern() -> None:
    http = FakeRegistry()
    small = gzip.compress(tar_bytes({"usr/lib/large": os.urandom(700_000)}))
    data = gzip.compress(tar_bytes({"usr/lib/large": os.urandom(900_000), "models/m.gguf": GGUF}))
    file = _image(http, http.add_blob(data, f"{IMAGE}.tar+gzip"), http.add_blob(small, f"{IMAGE}.tar+gzip")).file
    assert (f"sha256:{file.sha256}", file.member) == (sha256(data), "models/*.gguf")


def test_model_of_an_image_outside_models_is_refused_with_what_was_found() -> None:
    http = FakeRegistry()
    layer = http.add_blob(tar_bytes({"opt/m.gguf": GGUF, "models/readme": b"x" * 600}), f"{IMAGE}.tar")
    _refused(r"no GGUF file under /models/; its last layers have opt/m\.gguf, models/readme", http, layer, image=True)


def test_several_models_are_refused_with_their_names() -> None:
    http = FakeRegistry()
    layers = [
        http.add_blob(GGUF, f"{MODELPACK}.weight.v1.raw", path="a/q4.gguf"),
        http.add_blob(OTHER, f"{MODELPACK}.weight.v1.raw", path="a/q8.gguf"),
    ]
    _refused(r"2 models, and a source is one: a/q4\.gguf, a/q8\.gguf", http, *layers)


def test_incomplete_split_model_is_refused() -> None:
    http = FakeRegistry()
    layer = http.add_blob(GGUF, f"{MODELPACK}.weight.v1.raw", path="m-00002-of-00003.gguf")
    _refused(r"'m' is not complete: parts \[2\] of 3", http, layer)


@pytest.mark.parametrize(
    ("media_type", "path"),
    [
        (f"{DOCKER}.safetensors", ""),
        (f"{MODELPACK}.weight.v1.raw", "model.safetensors"),
        (f"{MODELPACK}.weight.v1.safetensors", ""),
        (f"{DOCKER}.dduf", ""),
    ],
)
def test_safetensors_are_refused(media_type: str, path: str) -> None:
    http = FakeRegistry()
    _refused("safetensors weights, which llama.cpp cannot load", http, http.add_blob(b"x" * 600, media_type, path=path))


def test_safetensors_in_an_archive_are_refused() -> None:
    http = FakeRegistry()
    layer = http.add_blob(tar_bytes({"m/model.safetensors": b"x" * 600}), f"{KITOPS}.model.v1.tar")
    _refused("safetensors weights", http, layer)


def test_artifact_without_a_model_is_refused_with_its_types() -> None:
    http = FakeRegistry()
    layer = http.add_blob(b"x" * 600, "application/vnd.example.chart")
    _refused(r"no GGUF file; it has application/vnd\.example\.chart", http, layer)


def test_model_of_ollama_is_refused_with_its_scheme() -> None:
    http = FakeRegistry()
    _refused("ollama://", http, http.add_blob(GGUF, "application/vnd.ollama.image.model"))


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 600,
        b"not a tar archive" * 100,
        os.urandom(2000),
        gzip.compress(b"\0" * 50_000_000),
        tar_bytes({"../../models/m.gguf": GGUF}),
        tar_bytes({"models/../x.gguf": GGUF}),
        tar_bytes({f"f{number}": b"" for number in range(6000)}),
    ],
)
@every_compression
def test_hostile_layer_of_an_image_is_an_error_or_a_pattern(data: bytes, compression: str) -> None:
    http = FakeRegistry()
    layer = http.add_blob(data, f"{IMAGE}.tar{compression}")
    try:
        found = _image(http, layer).file.member
    except SourceError as error:
        found = str(error)
    assert found == "models/*.gguf" or "no GGUF file" in found
    assert len(http.requests) < 80


def test_raw_weights_without_a_path_from_a_registry_without_ranges() -> None:
    http = FakeRegistry(ranges=False)
    weights = GGUF * 50
    _check_raw(_resolve(http, http.add_blob(weights, f"{MODELPACK}.weight.v1.raw")).file, weights)


def test_looks_into_layers_are_bounded() -> None:
    http = FakeRegistry()
    data = tar_bytes({f"f{number}": bytes(70_000) for number in range(100)})
    _image(http, *[http.add_blob(data, f"{IMAGE}.tar")] * 400)
    assert MAX_LOOKS < len(http.requests) < MAX_LOOKS + 10


def test_docker_hub_is_asked_at_its_api_and_with_the_official_namespace() -> None:
    http = FakeRegistry(host="registry-1.docker.io")
    http.add_manifest("latest", {"layers": [http.add_blob(GGUF, f"{DOCKER}.gguf.v3")]})
    resolver = OciResolver(http, NO_CREDENTIALS)
    resolver.resolve(OciSource("oci://docker.io/ai/smollm2", "docker.io", "ai/smollm2", "latest"))
    resolver.resolve(OciSource("oci://docker.io/smollm2", "docker.io", "smollm2", "latest"))
    assert [request.url for request in http.requests] == [
        "https://registry-1.docker.io/v2/ai/smollm2/manifests/latest",
        "https://registry-1.docker.io/v2/library/smollm2/manifests/latest",
    ]


def test_pin_is_requested_by_digest() -> None:
    http = FakeRegistry()
    first = http.add_manifest("135m", {"layers": [http.add_blob(GGUF, f"{DOCKER}.gguf.v3")]})
    http.add_manifest("135m", {"layers": [http.add_blob(OTHER, f"{DOCKER}.gguf.v3")]})
    assert OciResolver(http, NO_CREDENTIALS).resolve(SOURCE, pin=first).pin == first


def test_plain_http_hosts_are_asked_without_tls() -> None:
    http = FakeRegistry(host="registry.example")
    http.add_manifest("135m", {"layers": [http.add_blob(GGUF, f"{DOCKER}.gguf.v3")]})
    OciResolver(http, NO_CREDENTIALS, plain_http_hosts=("registry.example",)).resolve(SOURCE)
    assert http.requests[0].url.startswith("http://registry.example/")


def test_other_sources_are_a_programming_error() -> None:
    with pytest.raises(TypeError):
        OciResolver(FakeRegistry(), NO_CREDENTIALS).resolve(OllamaSource("ollama://a", "r", "library", "a", "latest"))
