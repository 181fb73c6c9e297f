"""Container images with weights: the path of the weights in an image that a container runtime can mount."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Mapping

import pytest
import zstandard

from corral_core.sources.forms import OciSource
from corral_server.pull.credentials import NO_CREDENTIALS
from corral_server.pull.remote_files import ResolvedSource
from corral_server.pull.resolvers.oci import OciResolver
from tests.pull.fake_registry import FakeRegistry, Json, tar_bytes

SOURCE = OciSource("oci://registry.example/team/a:latest", "registry.example", "team/a", "latest")
GGUF, OTHER = b"GGUF" + os.urandom(2000), b"GGUF" + os.urandom(2000)
OCI, DOCKER = "application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"
MODELPACK = "application/vnd.cncf.model"
IMAGE = "application/vnd.oci.image.layer.v1"
PACK: Mapping[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    "+gzip": gzip.compress,
    "+zstd": zstandard.compress,
}


def resolve(http: FakeRegistry, *layers: Json, config: str = f"{MODELPACK}.config.v1+json") -> ResolvedSource:
    http.add_manifest("latest", {"config": http.add_blob(b"{}", config), "layers": list(layers)})
    return OciResolver(http, NO_CREDENTIALS).resolve(SOURCE)


def image(http: FakeRegistry, *layers: Json) -> ResolvedSource:
    return resolve(http, *layers, config=OCI)


@pytest.mark.parametrize("config", [OCI, DOCKER])
@pytest.mark.parametrize("compression", PACK)
def test_weights_of_an_image_have_a_path_in_it(config: str, compression: str) -> None:
    http = FakeRegistry()
    base = http.add_blob(PACK[compression](tar_bytes({"etc/passwd": b""})), f"{IMAGE}.tar{compression}")
    data = http.add_blob(PACK[compression](tar_bytes({"models/x/blob": GGUF})), f"{IMAGE}.tar{compression}")
    assert resolve(http, base, data, config=config).image_path == "models/x/blob"


@pytest.mark.parametrize(("folder", "path"), [("models", "models/m-00001-of-00002.gguf"), ("models/other", "")])
def test_parts_of_an_image_are_mounted_if_they_are_in_one_folder(folder: str, path: str) -> None:
    http = FakeRegistry()
    resolved = image(
        http,
        http.add_blob(tar_bytes({"models/m-00001-of-00002.gguf": GGUF}), f"{IMAGE}.tar"),
        http.add_blob(tar_bytes({f"{folder}/m-00002-of-00002.gguf": OTHER}), f"{IMAGE}.tar"),
    )
    assert (len(resolved.files), resolved.image_path) == (2, path)


def test_what_is_no_image_has_no_path_in_one() -> None:
    """A container runtime unpacks neither other layers nor what has another config."""
    http = FakeRegistry()
    layer = http.add_blob(tar_bytes({"models/m.gguf": GGUF}), f"{IMAGE}.tar")
    assert resolve(http, layer).image_path == ""
    assert resolve(http, layer, config="application/vnd.oci.empty.v1+json").image_path == ""
    assert image(http, http.add_blob(GGUF, f"{MODELPACK}.weight.v1.raw", path="models/m.gguf")).image_path == ""
    assert image(http, layer, http.add_blob(b"MIT", "application/vnd.docker.ai.license")).image_path == ""


def test_path_in_an_image_that_is_only_expected_is_not_used() -> None:
    http = FakeRegistry()
    data = gzip.compress(tar_bytes({"bin/sh": os.urandom(2_000_000), "models/m.gguf": GGUF}))
    assert image(http, http.add_blob(data, f"{IMAGE}.tar+gzip")).image_path == ""
