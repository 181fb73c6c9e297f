"""Body of ``/api/create``: its fields with the checks and texts of Ollama (``server/create.go``).

What a Model here cannot have is refused with what to do, or, where the result is the same without it, left out with a
progress line that says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from corral_core.base.json_fields import JsonObject, get_object
from corral_core.base.names import parse_name
from corral_core.contracts.source_defaults import SourceDefaults
from corral_core.model.parameters import Parameters
from corral_server.gateway.bodies.json_body import field
from corral_server.gateway.management.blobs import BlobRefused, BlobStore
from corral_server.wire.errors import ApiError
from corral_server.wire.go_json import json_kind

KIND: Final = "CreateRequest"
INVALID_DIGEST: Final = "invalid digest format"
_DIGEST: Final = re.compile("sha256[:-]([0-9a-fA-F]{64})")
NO_UPLOADS: Final = (
    "files cannot be uploaded here: set a registry for them (chart: models.blobs), or create the model from a source "
    "such as hf://organization/repository or https://host/file.gguf"
)
_SAFETENSORS: Final = (
    "safetensors are not converted here: convert them with llama.cpp (convert_hf_to_gguf.py) and create the model from "
    "the GGUF file"
)
_SEVERAL: Final = (
    "a model is made of one GGUF file here: merge a split model with llama.cpp (llama-gguf-split --merge) first"
)
_QUANTIZE: Final = (
    "create-time quantization is only supported for safetensors imports; quantize GGUF models with llama.cpp tools "
    "before importing"
)
_QUANTIZATIONS: Final = "supported types are int4, int8, nvfp4, mxfp4, mxfp8"
_MIXED: Final = "mixed model file types: found both gguf and safetensors inputs"
_NO_DRAFT: Final = "draft models are not supported here: leave DRAFT out"
_NOT_REMOTE: Final = "remote models are not supported here: create the model from weights"
_UNUSED: Final[Mapping[str, str]] = {
    "renderer": "the chat template of the model is used",
    "parser": "the parser follows from the chat template",
    "requires": "the version of Ollama does not matter here",
    "info": "the metadata of the weights counts",
}


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """``base`` is the name or URI in ``from``; ``files`` and ``adapters`` are digests by file name.

    ``lines`` are the progress lines about fields without an effect.
    """

    name: str
    base: str
    files: Mapping[str, str]
    adapters: Mapping[str, str]
    template: str
    system: str
    licenses: tuple[str, ...]
    parameters: JsonObject
    messages: Sequence[JsonObject]
    lines: tuple[str, ...]


def parse_create(data: Mapping[str, object]) -> CreateRequest:
    """Parse the body. Raises ApiError 400."""
    files, adapters = (_digests(data, name) for name in ("files", "adapters"))
    _refuse(data, files)
    unused = [f"ignoring {name}: {reason}" for name, reason in _UNUSED.items() if data.get(name)]
    return CreateRequest(
        name=field(data, "model", kind=KIND) or field(data, "name", kind=KIND),
        base=field(data, "from", kind=KIND),
        files=files,
        adapters=adapters,
        template=field(data, "template", kind=KIND),
        system=field(data, "system", kind=KIND),
        licenses=_licenses(data.get("license")),
        parameters=_parameters(data),
        messages=_messages(data),
        lines=tuple(unused),
    )


def _refuse(data: Mapping[str, object], files: Mapping[str, str]) -> None:
    """Raise ApiError 400 for fields that no Model can have."""
    kind = field(data, "quantize", kind=KIND) or field(data, "quantization", kind=KIND)
    if data.get("draft_quantize") and not data.get("draft_files"):
        raise ApiError(400, "--draft-quantize requires a DRAFT model")
    if data.get("draft_files"):
        raise ApiError(400, _NO_DRAFT)
    if data.get("remote_host"):
        raise ApiError(400, _NOT_REMOTE)
    if any(map(_is_safetensors, files)):
        raise ApiError(400, _SAFETENSORS if all(map(_is_safetensors, files)) else _MIXED)
    if kind and (files or data.get("from")):
        raise ApiError(400, _QUANTIZE)
    if kind:
        raise ApiError(400, f'unsupported quantize type "{kind}": {_QUANTIZATIONS}')


def _is_safetensors(path: str) -> bool:
    return path.lower().endswith(".safetensors")


def parse_digest(text: str) -> str:
    """Return the digest as ``sha256:`` and lower-case hex digits. Raises ApiError 400."""
    found = _DIGEST.fullmatch(text)
    if found is None:
        raise ApiError(400, INVALID_DIGEST)
    return f"sha256:{found[1].lower()}"


def with_changes(base: JsonObject, wanted: CreateRequest, defaults: SourceDefaults) -> dict[str, object]:
    """Return the base's spec with what the request sets; ``defaults`` are what the base's source brings.

    Parameters are added one by one, licenses are added to those of the base, all else is replaced.
    """
    spec = dict(base)
    texts = {"template": wanted.template, "system": wanted.system}
    spec.update({name: text for name, text in texts.items() if text})
    if wanted.licenses:
        own = str(base.get("license") or "\n".join(defaults.licenses))
        spec["license"] = "\n".join(filter(None, (own, *wanted.licenses)))
    if wanted.parameters:
        spec["parameters"] = {**get_object(base, "parameters"), **wanted.parameters}
    if wanted.messages:
        spec["messages"] = list(wanted.messages)
    return spec


async def blob_source(blobs: BlobStore | None, files: Mapping[str, str], *, adapter: bool = False) -> str:
    """Return the source of the one GGUF file that the client uploaded. Raises ApiError."""
    if any(map(_is_safetensors, files)):
        raise ApiError(400, _SAFETENSORS)
    if not files:
        raise ApiError(400, "unknown type")
    if len(files) > 1:
        raise ApiError(400, "only one adapter is currently supported" if adapter else _SEVERAL)
    digest = next(iter(files.values()))
    if blobs is None:
        raise ApiError(501, NO_UPLOADS)
    try:
        if not await blobs.has(digest):
            raise ApiError(400, f'blob "{digest}" not found: upload the file with POST /api/blobs/{digest} first')
        return blobs.source(digest)
    except BlobRefused as error:
        raise ApiError(error.status, str(error)) from None


def split_projector(files: Mapping[str, str]) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return the files of the weights and the one of their projector, which has ``mmproj`` in its name by convention.

    Without a second file there is no projector.
    """
    named = {path for path in files if "mmproj" in path.rpartition("/")[2].lower()}
    if len(files) != 2 or len(named) != 1:
        return files, {}
    return {path: files[path] for path in files if path not in named}, {path: files[path] for path in named}


def adapter_spec(name: str, source: str) -> dict[str, object]:
    """Return the fields of a Model whose name is that of its adapter."""
    return {"adapters": [{"name": parse_name(name).short, "source": source}]}


def _digests(data: Mapping[str, object], name: str) -> dict[str, str]:
    found = _object(data, name, "map[string]string")
    digests = {}
    for path, text in found.items():
        if not isinstance(text, str):
            raise _wrong(text, name, "string")
        if not _valid_path(path):
            raise ApiError(400, f"file path must be relative: {path}")
        digest = _DIGEST.fullmatch(text)
        if digest is None:
            raise ApiError(400, f"invalid digest for {path}: {INVALID_DIGEST}" if text else INVALID_DIGEST)
        digests[path] = f"sha256:{digest[1].lower()}"
    return digests


def _object(data: Mapping[str, object], name: str, kind: str) -> Mapping[str, object]:
    value = data.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _wrong(value, name, kind)
    return value


def _licenses(value: object) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if texts is None:
        return ()
    if not isinstance(texts, list):
        raise ApiError(400, f"license must be a string or a list of strings: got {_go_type(texts)}")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ApiError(400, f"license must be a string or a list of strings: element {index} is {_go_type(text)}")
    return tuple(text for text in texts if text)


def _go_type(value: object) -> str:
    """Return the type that Go's decoder gives to a value of an ``any``."""
    kinds = {"number": "float64", "string": "string", "bool": "bool", "object": "map[string]interface {}"}
    return "<nil>" if value is None else kinds.get(json_kind(value), "[]interface {}")


def _parameters(data: Mapping[str, object]) -> dict[str, object]:
    """Return the parameters that a Model can have; others are ignored, as in Ollama."""
    found = _object(data, "parameters", "map[string]interface {}")
    known = {name: value for name, value in found.items() if name in Parameters.__annotations__ and value is not None}
    return {name: [value] if name == "stop" and isinstance(value, str) else value for name, value in known.items()}


def _messages(data: Mapping[str, object]) -> list[JsonObject]:
    messages = data.get("messages")
    if messages is None:
        return []
    if not isinstance(messages, list):
        raise _wrong(messages, "messages", "[]api.Message")
    result: list[JsonObject] = []
    for message in messages:
        if not isinstance(message, Mapping):
            raise _wrong(message, "messages", "api.Message")
        if message.get("images") or message.get("tool_calls"):
            raise ApiError(400, "messages of a model can only have a role and text here")
        result.append({name: field(message, name, kind="Message") for name in ("role", "content")})
    return result


def _wrong(value: object, name: str, kind: str) -> ApiError:
    return ApiError(400, f"json: cannot unmarshal {json_kind(value)} into Go struct field {KIND}.{name} of type {kind}")


def _valid_path(path: str) -> bool:
    """Return whether Go's ``fs.ValidPath`` holds."""
    return path == "." or all(part not in ("", ".", "..") for part in path.split("/"))
