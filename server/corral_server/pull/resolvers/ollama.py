"""Resolver of ``ollama://``: models in Ollama's library, in other registries, and in Hugging Face's by ``hf.co``.

- The pin is the digest of the manifest. Ollama's registry is asked by tag; if the tag has moved since, the manifest is
  asked for by its digest, as a manifest and as a blob, since not every registry answers both.
- Model, projector and adapter layers become files. Template, system prompt, parameters, messages and licenses are read
  at once, with their digests checked.
- Models that only Ollama's own engines or its cloud can run are refused before anything is downloaded.

Sources: Ollama's server/images.go (media types), types/model/config.go (configuration), server/auth.go (tokens).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from corral_core.base.errors import SourceError
from corral_core.base.json_fields import JsonObject, get_str
from corral_core.base.received_json import parse_received_object
from corral_core.contracts.source_defaults import SourceDefaults
from corral_core.sources.forms import OllamaSource
from corral_core.sources.locate import MAX_PARTS
from corral_server.pull.credentials import Credentials
from corral_server.pull.distribution.client import RepositoryClient
from corral_server.pull.distribution.manifests import Descriptor, Manifest
from corral_server.pull.distribution.repository import Repository
from corral_server.pull.http_requests import HttpRequests
from corral_server.pull.remote_files import FileRole, RemoteFile, ResolvedSource
from corral_server.pull.resolvers.file_names import gguf_name, part_names
from corral_server.pull.resolvers.modelfile_parts import (
    JSON_LIMIT,
    TEXT_LIMIT,
    ModelfileParts,
    parse_messages,
    parse_parameters,
    parse_text,
)

LAYER: Final = "application/vnd.ollama.image."
"""Prefix of the media types of Ollama's layers."""
USER_AGENT: Final = "ollama/9.9.9 (amd64 linux) corral"
"""The registry answers 412 for models that need a newer ``ollama`` than the User-Agent names."""
MANIFEST_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
"""The only media type of manifests that ``ollama`` accepts."""
_MAX_TEXT_LAYERS: Final = 64
_CONFIG_LIMIT: Final = 1024 * 1024


class OllamaResolver:
    """``credentials.ollama_key`` signs token requests for private models."""

    def __init__(self, http: HttpRequests, credentials: Credentials, *, plain_http_hosts: Collection[str] = ()) -> None:
        self._http = http
        self._credentials = credentials
        self._plain_http_hosts = plain_http_hosts

    def resolve(self, source: object, *, pin: str = "") -> ResolvedSource:
        """Return the files of a model; with a pin, those of the manifest with that digest.

        Raises SourceError and TransientError.
        """
        if not isinstance(source, OllamaSource):
            raise TypeError(f"not an Ollama source: {source!r}")
        name = f"{source.namespace}/{source.name}"
        repository = Repository(source.registry, name, self._plain_http_hosts, realm_at_registry=True)
        headers = {"User-Agent": USER_AGENT}
        client = RepositoryClient(
            self._http, repository, credentials=self._credentials, headers=headers, accept=(MANIFEST_TYPE,)
        )
        try:
            manifest = _pinned(client, source, pin=pin) if pin else client.manifest(source.tag, architecture="amd64")
            return _resolved(client, source, manifest=manifest)
        except SourceError as error:
            raise SourceError(f"source {source.uri!r}: {error}") from error


def _pinned(client: RepositoryClient, source: OllamaSource, *, pin: str) -> Manifest:
    """Return the manifest with the pinned digest. Raises SourceError if the registry does not have it any more."""
    for reference in (source.tag, pin):
        manifest = client.find_manifest(reference)
        if manifest is not None and manifest.digest == pin:
            return manifest
    manifest = client.manifest_blob(pin)
    if manifest is not None:
        return manifest
    raise SourceError(
        f"the registry {source.registry} does not have the pinned version ({pin}) any more; "
        "update the Model to the present one"
    )


def _resolved(client: RepositoryClient, source: OllamaSource, *, manifest: Manifest) -> ResolvedSource:
    kinds = [layer.media_type.removeprefix(LAYER) for layer in manifest.layers]
    config = _config(client, manifest)
    _refuse(kinds, config)
    by_kind = {kind: [layer for layer, of in zip(manifest.layers, kinds, strict=True) if of == kind] for kind in kinds}
    models = by_kind.get("model", [])
    if not models:
        raise SourceError(f"the manifest has no model layer; it has {', '.join(sorted(set(kinds))) or 'no layers'}")
    if len(models) > MAX_PARTS:
        raise SourceError(f"the model has {len(models)} parts; at most {MAX_PARTS} are allowed")
    stem = f"{source.name}-{source.tag}"
    named = [
        *((name, FileRole.WEIGHTS) for name in part_names(stem, len(models))),
        *((name, FileRole.PROJECTOR) for name in _numbered(f"mmproj-{stem}", len(by_kind.get("projector", [])))),
        *((name, FileRole.ADAPTER) for name in _numbered(f"{stem}-adapter", len(by_kind.get("adapter", [])))),
    ]
    layers = [*models, *by_kind.get("projector", []), *by_kind.get("adapter", [])]
    defaults = _defaults(client, list(zip(kinds, manifest.layers, strict=True)))
    files = [
        RemoteFile(name, role, client.location(layer), size=layer.size, sha256=layer.sha256)
        for (name, role), layer in zip(named, layers, strict=True)
    ]
    return ResolvedSource(source.uri, manifest.digest, tuple(files), defaults)


def _numbered(stem: str, count: int) -> list[str]:
    return [gguf_name(stem if number == 1 else f"{stem}-{number}") for number in range(1, count + 1)]


def _config(client: RepositoryClient, manifest: Manifest) -> JsonObject:
    """Return the configuration, empty if the manifest has none."""
    if manifest.config is None or manifest.config.size == 0:
        return {}
    try:
        return parse_received_object(client.blob(manifest.config, limit=_CONFIG_LIMIT), limit=_CONFIG_LIMIT)
    except ValueError as error:
        raise SourceError(f"the configuration of the model is not valid: {error}") from None


def _refuse(kinds: list[str], config: JsonObject) -> None:
    """Raise SourceError for a model that llama.cpp cannot run."""
    if get_str(config, "remote_host") or get_str(config, "remote_model"):
        raise SourceError("the model runs in Ollama's cloud and has no weights to download; use a local model")
    if "tensor" in kinds or get_str(config, "model_format").lower() == "safetensors":
        raise SourceError(
            "the model has safetensors weights for Ollama's MLX engine, which llama.cpp cannot load; "
            "use a tag with GGUF weights, or hf:// with a GGUF repository"
        )


def _defaults(client: RepositoryClient, layers: list[tuple[str, Descriptor]]) -> SourceDefaults:
    texts = [(kind, layer) for kind, layer in layers if kind in _TEXTS]
    if len(texts) > _MAX_TEXT_LAYERS:
        raise SourceError(f"the manifest has {len(texts)} layers of text; at most {_MAX_TEXT_LAYERS} are allowed")
    parts = ModelfileParts()
    for kind, layer in texts:
        if kind == "license":
            if layer.size <= TEXT_LIMIT:
                parts.add_license(client.blob(layer, limit=TEXT_LIMIT))
        elif kind == "params":
            parts.parameters = parse_parameters(client.blob(layer, limit=JSON_LIMIT))
        elif kind == "messages":
            parts.messages = parse_messages(client.blob(layer, limit=JSON_LIMIT))
        elif kind == "system":
            parts.system = parse_text(client.blob(layer, limit=TEXT_LIMIT), "system prompt")
        else:
            parts.template = parse_text(client.blob(layer, limit=TEXT_LIMIT), "template")
    return parts.defaults()


_TEXTS: Final = ("template", "prompt", "system", "params", "messages", "license")
