"""Resolver of ``oci://``: model artifacts of ModelPack, Docker, KitOps and RamaLama, and images with a GGUF file.

- The pin is the digest of the manifest; of an index, that of the manifest that was chosen from it.
- A GGUF file that is a blob is read by ranges. A GGUF file in a tar layer is a member of an archive (``oci_contents``).
  In an image it must be under ``/models``, where KServe's modelcars and RamaLama's images have it.
- An artifact has one model: one GGUF file or the parts of a split one, beside a projector and KitOps' additional files.
  Several models in one artifact are an error, as nothing says which one is meant.
"""

from __future__ import annotations

import platform
from collections.abc import Collection
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Final

from corral_core.base.errors import SourceError
from corral_core.sources.forms import OciSource
from corral_server.pull.credentials import Credentials
from corral_server.pull.distribution.client import RepositoryClient
from corral_server.pull.distribution.manifests import Manifest
from corral_server.pull.distribution.repository import Repository
from corral_server.pull.http_requests import HttpRequests
from corral_server.pull.remote_files import FileRole, RemoteFile, ResolvedSource
from corral_server.pull.resolvers.file_names import gguf_name, part_names
from corral_server.pull.resolvers.modelfile_parts import TEXT_LIMIT, ModelfileParts, parse_text
from corral_server.pull.resolvers.oci_contents import IMAGE_FOLDER, ArtifactContents, FoundFile
from corral_server.pull.resolvers.oci_layers import LayerKind, is_projector
from corral_server.pull.resolvers.split_files import SplitName, parse_split
from corral_server.registries.docker_config import DOCKER_HUB, api_host

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_IMAGE_CONFIGS: Final = frozenset(
    {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
)
_SHOWN: Final = 8
_MAX_TEXTS: Final = 64


class OciResolver:
    """``plain_http_hosts`` are registries (and token servers) that are reached without TLS."""

    def __init__(self, http: HttpRequests, credentials: Credentials, *, plain_http_hosts: Collection[str] = ()) -> None:
        self._http = http
        self._credentials = credentials
        self._plain_http_hosts = plain_http_hosts

    def resolve(self, source: object, *, pin: str = "") -> ResolvedSource:
        """Return the files of an artifact or image; with a pin, those of the manifest with that digest.

        Raises SourceError and TransientError.
        """
        if not isinstance(source, OciSource):
            raise TypeError(f"not an OCI source: {source!r}")
        official = api_host(source.registry) == DOCKER_HUB and "/" not in source.repository
        name = f"library/{source.repository}" if official else source.repository
        repository = Repository(source.registry, name, self._plain_http_hosts)
        client = RepositoryClient(self._http, repository, credentials=self._credentials)
        architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
        try:
            manifest = client.manifest(pin or source.reference, architecture=architecture)
            return _Artifact(client, source, manifest).resolved()
        except SourceError as error:
            raise SourceError(f"source {source.uri!r}: {error}") from error


class _Artifact:
    """One manifest and what its layers hold."""

    def __init__(self, client: RepositoryClient, source: OciSource, manifest: Manifest) -> None:
        self._client = client
        self._source = source
        self._manifest = manifest
        self._contents = ArtifactContents(client, manifest)

    def resolved(self) -> ResolvedSource:
        found = self._contents.files
        weights = self._named_weights(_only_weights(found) or self._largest_unread())
        taken = {name for name, _ in weights}
        files = [self._remote(name, file) for name, file in weights]
        for file in found:
            if file.role is not FileRole.WEIGHTS:
                name = _free_name(self._base_name(file), taken)
                taken.add(name)
                files.append(self._remote(name, file))
        return ResolvedSource(
            self._source.uri,
            self._manifest.digest,
            tuple(files),
            self._parts().defaults(),
            image_path=self._image_path(weights),
        )

    def _largest_unread(self) -> list[FoundFile]:
        """Return the largest layer whose members are not all known: weights are larger than anything else."""
        return sorted(_only_weights(self._contents.unread), key=lambda file: file.layer.size)[-1:]

    def _named_weights(self, files: list[FoundFile]) -> list[tuple[str, FoundFile]]:
        """Return the weights with their names, the parts of a split file in order."""
        if not files:
            raise SourceError(self._nothing_found())
        splits = [(split, file) for file in files if (split := parse_split(file.name)) is not None]
        if len(splits) == len(files):
            return _split_parts(splits)
        if len(files) == 1:
            return [(self._base_name(files[0]), files[0])]
        if all(not file.path for file in files):
            return list(zip(part_names(self._stem(), len(files)), files, strict=True))
        names = ", ".join(sorted(file.path or file.layer.digest for file in files)[:_SHOWN])
        raise SourceError(f"the artifact has {len(files)} models, and a source is one: {names}")

    def _base_name(self, file: FoundFile) -> str:
        name = gguf_name(file.name or self._stem())
        projector = file.role is FileRole.PROJECTOR and not is_projector(name)
        return f"mmproj-{name}" if projector else name

    def _stem(self) -> str:
        reference = self._source.reference
        tag = "" if reference.startswith("sha256:") else f"-{reference}"
        return f"{PurePosixPath(self._source.repository).name}{tag}"

    def _remote(self, name: str, file: FoundFile) -> RemoteFile:
        remote = RemoteFile(
            name, file.role, self._client.location(file.layer), size=file.layer.size, sha256=file.layer.sha256
        )
        return replace(remote, archive=file.archive, member=file.member, member_size=file.member_size)

    def _image_path(self, weights: list[tuple[str, FoundFile]]) -> str:
        """Return the path of the weights if a container runtime can mount the manifest as an image and find them.

        A runtime unpacks what has the config and the layers of an image (containerd's ``core/images/mediatypes.go``).
        llama.cpp finds the other parts of a split file beside the first.
        """
        config = self._manifest.config
        kinds = {kind for _, kind in self._contents.layers}
        if config is None or config.media_type not in _IMAGE_CONFIGS or kinds != {LayerKind.IMAGE_LAYER}:
            return ""
        first = weights[0][1]
        apart = len(weights) > 1 and any(
            PurePosixPath(file.path) != PurePosixPath(first.path).with_name(name) for name, file in weights
        )
        return "" if apart or first.path != first.member else first.path

    def _parts(self) -> ModelfileParts:
        parts = ModelfileParts()
        texts = [
            (layer, kind) for layer, kind in self._contents.layers if kind in (LayerKind.TEMPLATE, LayerKind.LICENSE)
        ]
        for layer, kind in texts[:_MAX_TEXTS]:
            if kind is LayerKind.TEMPLATE:
                parts.template = parse_text(self._client.blob(layer, limit=TEXT_LIMIT), "chat template")
            elif layer.size <= TEXT_LIMIT:
                parts.add_license(self._client.blob(layer, limit=TEXT_LIMIT))
        return parts

    def _nothing_found(self) -> str:
        kinds = {kind for _, kind in self._contents.layers}
        if LayerKind.OLLAMA in kinds:
            return f"this is a model of Ollama's: write ollama:// instead ({self._manifest.digest})"
        unsuitable = [path for path in self._contents.seen if path.lower().endswith(".safetensors")]
        if LayerKind.SAFETENSORS in kinds or unsuitable:
            return (
                "the artifact has safetensors weights, which llama.cpp cannot load; "
                "use an artifact with GGUF weights, or convert them with llama.cpp's convert_hf_to_gguf.py"
            )
        if LayerKind.IMAGE_LAYER in kinds:
            elsewhere = (
                ", ".join(self._contents.seen[-_SHOWN:]) or "no files that can be seen without downloading the layers"
            )
            return f"the image has no GGUF file under /{IMAGE_FOLDER}; its last layers have {elsewhere}"
        types = sorted({layer.path or layer.media_type for layer, _ in self._contents.layers})[:_SHOWN]
        return f"the artifact has no GGUF file; it has {', '.join(types) or 'no layers'}"


def _only_weights(files: list[FoundFile]) -> list[FoundFile]:
    return [file for file in files if file.role is FileRole.WEIGHTS]


def _split_parts(splits: list[tuple[SplitName, FoundFile]]) -> list[tuple[str, FoundFile]]:
    """Return the parts in order. Raises SourceError if they are not exactly those of one file."""
    models = {(split.prefix, split.count) for split, _ in splits}
    if len(models) > 1:
        raise SourceError(f"the artifact has parts of {len(models)} split models, and a source is one")
    ((prefix, count),) = models
    ordered = sorted(splits, key=lambda part: part[0].index)
    numbers = [split.index for split, _ in ordered]
    if numbers != list(range(1, count + 1)):
        raise SourceError(f"the split model {prefix!r} is not complete: parts {numbers[:_SHOWN]} of {count}")
    return list(zip(part_names(prefix, count), (file for _, file in ordered), strict=True))


def _free_name(name: str, taken: set[str]) -> str:
    stem = name.removesuffix(".gguf")
    return next(free for n in range(1, len(taken) + 2) if (free := name if n == 1 else f"{stem}-{n}.gguf") not in taken)
