"""Content of the images: only what they need to run."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from scripts.images import unpacked
from scripts.release import version
from scripts.sbom import bill_of_materials
from tests.cluster.api import Object, at

pytestmark = pytest.mark.node

MIB = 1024 * 1024
LIMITS = {"control": 200 * MIB, "runner": 250 * MIB}


@dataclass(frozen=True)
class Image:
    """An OCI archive; ``files`` are the paths of all layers."""

    archive: Path

    @cached_property
    def config(self) -> Object:
        index = self._json("index.json")
        manifest = self._blob(at(index, "manifests", 0, "digest"))
        return self._blob(at(manifest, "config", "digest"))

    @cached_property
    def files(self) -> frozenset[str]:
        return frozenset(self._files())

    def _files(self) -> Iterator[str]:
        manifest = self._blob(at(self._json("index.json"), "manifests", 0, "digest"))
        layers = at(manifest, "layers")
        assert isinstance(layers, list)
        with tarfile.open(self.archive) as outer:
            for layer in layers:
                blob = outer.extractfile(_path(layer["digest"]))
                assert blob is not None
                with tarfile.open(fileobj=blob) as inner:
                    yield from (member.name for member in inner)

    def _blob(self, digest: object) -> Object:
        return self._json(_path(digest))

    def _json(self, path: str) -> Object:
        with tarfile.open(self.archive) as outer:
            file = outer.extractfile(path)
            assert file is not None
            found: Object = json.load(file)
            return found


def _path(digest: object) -> str:
    return f"blobs/{str(digest).replace(':', '/')}"


@pytest.fixture(params=LIMITS)
def image(request: pytest.FixtureRequest, archives: dict[str, Path]) -> Image:
    return Image(archives[request.param])


def test_an_image_is_small(image: Image) -> None:
    size, _ = unpacked(image.archive)
    assert size < LIMITS[image.archive.name.partition("-")[0]]


def test_an_image_keeps_the_records_of_its_debian_packages(image: Image) -> None:
    """Scanners find the packages, and each has its copyright file."""
    names = {Path(file).name for file in image.files if re.fullmatch(r"var/lib/dpkg/status\.d/[^/]+", file)}
    assert {"libc6", "libssl3", "libpython3.11-stdlib", "python3.11-minimal", "ca-certificates"} <= names
    assert {name for name in names if f"usr/share/doc/{name}/copyright" not in image.files} == set()
    assert "etc/os-release" in image.files


def test_the_bill_of_materials_is_valid_and_names_python_and_debian_packages(image: Image) -> None:
    bill = bill_of_materials(image.archive, "image")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill)) is None
    urls = {str(component["purl"]).partition("@")[0] for component in _list(bill["components"])}
    assert {"pkg:pypi/corral", "pkg:pypi/pydantic", "pkg:deb/debian/libc6", "pkg:deb/debian/libssl3"} <= urls


def _list(value: object) -> list[dict[str, object]]:
    assert isinstance(value, list)
    return value


def test_an_image_has_a_numeric_user_and_labels(image: Image) -> None:
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", str(at(image.config, "config", "User")))
    labels = at(image.config, "config", "Labels")
    assert isinstance(labels, dict)
    assert {f"org.opencontainers.image.{name}" for name in ("title", "description", "licenses")} <= labels.keys()
    assert labels["org.opencontainers.image.version"] == version()


def test_an_image_has_the_certificate_authorities_where_openssl_looks_for_them(image: Image) -> None:
    assert {"etc/ssl/certs/ca-certificates.crt", "usr/lib/ssl/cert.pem"} <= image.files


def test_an_image_has_no_shell_compiler_or_package_manager(image: Image) -> None:
    programs = {path.rpartition("/")[2] for path in image.files if "/bin/" in f"/{path}" and "/lib/" not in f"/{path}"}
    assert not programs & {
        "sh",
        "bash",
        "dash",
        "gcc",
        "g++",
        "cc",
        "cmake",
        "ninja",
        "git",
        "apt",
        "apt-get",
        "dpkg",
        "pip",
    }
    assert any(name.startswith("python3") for name in programs)
    packages = {path.split("site-packages/")[1].split("/")[0] for path in image.files if "site-packages/" in path}
    assert not packages & {"pip", "setuptools", "hatchling", "mypy", "mypyc"}


def test_an_image_has_no_cache_or_build_secret(image: Image) -> None:
    left = [path for path in image.files if "__pycache__" in path or "/.cache/" in f"/{path}" or "run/secrets" in path]
    assert left == []
    config = json.dumps(image.config)
    assert not re.search(r"PIP_(INDEX|EXTRA|CERT)|PROXY", config, re.IGNORECASE)


def test_only_the_runner_image_has_llama_cpp_with_kernels_for_several_cpus(archives: dict[str, Path]) -> None:
    control, runner = Image(archives["control"]), Image(archives["runner"])
    assert not [path for path in control.files if re.search(r"/llama_cpp|libllama|libggml", path)]
    kernels = {path.rpartition("/")[2] for path in runner.files if "libggml-cpu-" in path}
    assert {"libggml-cpu-sse42.so", "libggml-cpu-haswell.so", "libggml-cpu-skylakex.so"} <= kernels


def test_only_the_control_image_has_the_compiled_gateway(archives: dict[str, Path]) -> None:
    compiled = re.compile(r"/corral_server/gateway/proxy/forwarder\.cpython-.*\.so$")
    control, runner = Image(archives["control"]), Image(archives["runner"])
    assert any(compiled.search(path) for path in control.files)
    assert not any(compiled.search(path) for path in runner.files)
