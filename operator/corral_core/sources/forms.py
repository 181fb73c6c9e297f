"""Forms of a source of weights, one value class per scheme or family of schemes.

- A *local* source is read where it is: an installed Python package, a file, a claim.
- A *remote* source is pulled into a store first (``corral_server.pull``); a runner reads it from there.
- ``uri`` is the source as it was written. It identifies the source in a status and in a store.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal


@dataclass(frozen=True, slots=True)
class PackageSource:
    """``package://python_package/path``: a file in an installed Python package. ``path`` is relative."""

    uri: str
    package: str
    path: PurePosixPath


@dataclass(frozen=True, slots=True)
class FileSource:
    """``file:///path``: a file of the runner's machine or image. ``path`` is absolute."""

    uri: str
    path: PurePosixPath


@dataclass(frozen=True, slots=True)
class ClaimSource:
    """``pvc://claim/path``: a file on a PersistentVolumeClaim of the Model's namespace. ``path`` is relative."""

    uri: str
    claim: str
    path: PurePosixPath


@dataclass(frozen=True, slots=True)
class OllamaSource:
    """``ollama://[host/][namespace/]name[:tag]``, with Ollama's defaults filled in. ``registry`` is ``host[:port]``."""

    uri: str
    registry: str
    namespace: str
    name: str
    tag: str


@dataclass(frozen=True, slots=True)
class HubSource:
    """``hf://org/repo[:QUANTIZATION | /path/file.gguf][@revision]``, and ``modelscope://`` alike.

    At most one of ``quantization`` and ``path`` is set. Without a revision the hub's default branch is meant.
    """

    uri: str
    hub: Literal["hf", "modelscope"]
    repository: str
    quantization: str | None
    path: PurePosixPath | None
    revision: str | None


@dataclass(frozen=True, slots=True)
class UrlSource:
    """``https://host/path``: one file, or the first part of a split GGUF file. The URI is the URL."""

    uri: str


@dataclass(frozen=True, slots=True)
class BucketSource:
    """``s3://bucket/key``, ``gs://bucket/key`` and ``az://container/key``."""

    uri: str
    provider: Literal["s3", "gs", "az"]
    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class OciSource:
    """``oci://registry/repository[:tag | @digest]``. ``reference`` is the tag or the digest (``sha256:...``)."""

    uri: str
    registry: str
    repository: str
    reference: str


LocalSource = PackageSource | FileSource | ClaimSource
RemoteSource = OllamaSource | HubSource | UrlSource | BucketSource | OciSource
Source = LocalSource | RemoteSource
