"""Kinds of layers in OCI artifacts with models, by their media types and paths.

- ModelPack: https://github.com/modelpack/model-spec/blob/main/docs/spec.md; RamaLama writes it as well, with the media
  types that ``podman artifact`` detects.
- Docker's model artifacts: pkg/distribution/types/config.go of https://github.com/docker/model-runner.
- KitOps: pkg/lib/constants/mediaType.go of https://github.com/kitops-ml/kitops.
- Images: https://github.com/opencontainers/image-spec/blob/main/layer.md. ``oras push`` gives files the media type of
  an image layer, and their names as titles.
"""

from __future__ import annotations

import re
from enum import StrEnum, auto
from pathlib import PurePosixPath
from typing import Final

from corral_server.pull.distribution.manifests import Descriptor
from corral_server.pull.remote_files import Archive


class LayerKind(StrEnum):
    """UNKNOWN: the first bytes decide. SAFETENSORS stands for all formats of weights that llama.cpp does not load."""

    GGUF = auto()
    PROJECTOR = auto()
    ARCHIVE = auto()
    IMAGE_LAYER = auto()
    TEMPLATE = auto()
    LICENSE = auto()
    SAFETENSORS = auto()
    OLLAMA = auto()
    UNKNOWN = auto()
    OTHER = auto()


KITOPS_PART: Final = "application/vnd.kitops.modelkit.modelpart.v1."
"""Prefix of the media types of KitOps' additional model files, such as adapters."""
_EXACT: Final = {
    "application/vnd.docker.ai.gguf.v3": LayerKind.GGUF,
    "application/vnd.docker.ai.mmproj": LayerKind.PROJECTOR,
    "application/vnd.docker.ai.chat.template.jinja": LayerKind.TEMPLATE,
    "application/vnd.docker.ai.license": LayerKind.LICENSE,
    "application/vnd.docker.ai.safetensors": LayerKind.SAFETENSORS,
    "application/vnd.docker.ai.dduf": LayerKind.SAFETENSORS,
    "application/vnd.cncf.model.weight.v1.gguf": LayerKind.GGUF,
    "application/vnd.cncf.model.weight.v1.safetensors": LayerKind.SAFETENSORS,
}
_PATTERNS: Final = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"application/vnd\.ollama\.image\..*", LayerKind.OLLAMA),
        (r"application/vnd\.cncf\.model\.(weight|layer)\.v1\.tar(\+\w+)?", LayerKind.ARCHIVE),
        (r"application/vnd\.kitops\.modelkit\.(model|modelpart)\.v1\.tar(\+\w+)?", LayerKind.ARCHIVE),
        (r"application/vnd\.kitops\.modelkit\..*", LayerKind.OTHER),
        (r"application/vnd\.cncf\.model\.(weight\.config|doc|code|dataset)\.v1\.tar(\+\w+)?", LayerKind.OTHER),
        (r"application/vnd\.docker\.ai\..*\.tar", LayerKind.OTHER),
        (r"application/vnd\.oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+\w+)?", LayerKind.IMAGE_LAYER),
        (r"application/vnd\.docker\.image\.rootfs\.(foreign\.)?diff\.tar(\.gzip|\.zstd)?", LayerKind.IMAGE_LAYER),
    )
)
_SUFFIXES: Final = {".gguf": LayerKind.GGUF, ".safetensors": LayerKind.SAFETENSORS, ".jinja": LayerKind.TEMPLATE}
_LICENSE: Final = re.compile(r"(licen[sc]e|copying)\b.*", re.IGNORECASE)
_COMPRESSIONS: Final = {"gzip": Archive.TAR_GZIP, "zstd": Archive.TAR_ZSTD}


def layer_kind(layer: Descriptor) -> LayerKind:
    """Return the kind of a layer."""
    if kind := _EXACT.get(layer.media_type):
        return kind
    kind = next((kind for pattern, kind in _PATTERNS if pattern.fullmatch(layer.media_type)), LayerKind.UNKNOWN)
    if kind is LayerKind.IMAGE_LAYER and layer.path.lower().endswith(".gguf"):
        return LayerKind.UNKNOWN
    return _by_path(layer) if kind is LayerKind.UNKNOWN else kind


def is_projector(path: str) -> bool:
    """Check whether a GGUF file is a vision projector, by the name that llama.cpp's tools give it."""
    return "mmproj" in PurePosixPath(path).name.lower()


def archive_format(layer: Descriptor) -> Archive | None:
    """Return the format of a tar layer, None if its compression is not supported."""
    compression = re.search(r"tar[.+](\w+)$", layer.media_type)
    return Archive.TAR if compression is None else _COMPRESSIONS.get(compression[1])


def _by_path(layer: Descriptor) -> LayerKind:
    path = PurePosixPath(layer.path.lower())
    if kind := _SUFFIXES.get(path.suffix):
        return kind
    if _LICENSE.fullmatch(path.name):
        return LayerKind.LICENSE
    if layer.media_type.endswith(("json", ".weight.config.v1.raw", ".doc.v1.raw", ".code.v1.raw", ".dataset.v1.raw")):
        return LayerKind.OTHER
    return LayerKind.UNKNOWN
