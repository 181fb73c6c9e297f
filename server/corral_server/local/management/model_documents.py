"""Files of created Models: their paths, how a Model is written, and what a file has.

Names of Kubernetes have no ``_``, so two Models never have the same file, and no ``/``, so a file is always in the
folder.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

import yaml

from corral_core.base.errors import InvalidModel
from corral_core.base.json_fields import JsonObject, get_object
from corral_core.model.documents import load_documents
from corral_core.model.model import API_VERSION, KIND, Model
from corral_core.model.resource import DEFAULT_NAMESPACE, parse_model
from corral_server.gateway.management.store import ModelRefused
from corral_server.system.durable_files import write_durably

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def model_path(folder: Path, key: str) -> Path:
    """Return the file of a Model whose namespace and name are valid."""
    namespace, _, name = key.partition("/")
    return folder / (f"{name}.yaml" if namespace == DEFAULT_NAMESPACE else f"{namespace}_{name}.yaml")


def encoded_model(resource: JsonObject) -> tuple[Model, bytes]:
    """Return the Model and its file's content, which reads as the same document. Raises ModelRefused."""
    try:
        model = parse_model(resource)
        text = yaml.dump(resource, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
        if list(load_documents(text, label=model.key)) != [resource]:
            raise ModelRefused(422, f"the Model {model.key} has values that YAML cannot express")
        return model, text.encode()
    except (InvalidModel, yaml.YAMLError, UnicodeEncodeError) as error:
        raise ModelRefused(422, str(error)) from error


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines, such as templates, as blocks, and those with special characters in quotes."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = all(character.isprintable() or character in "\n\t" for character in text)
    style = ("|" if "\n" in text else None) if plain else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def write_model(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, data)


def read_documents(path: Path) -> dict[str, JsonObject]:
    """Return the documents of a file by the keys of their Models. Raises ModelRefused."""
    try:
        documents = list(load_documents(path.read_text("utf-8"), label="file"))
        return {parse_model(each).key: complete_document(each) for each in documents if isinstance(each, Mapping)}
    except (InvalidModel, UnicodeDecodeError) as error:
        raise ModelRefused(409, f"the file {path} has errors; correct it first: {error}") from error
    except OSError as error:
        raise file_refused(error, path) from error


def complete_document(document: JsonObject) -> JsonObject:
    """Return the document with the fields that a file may leave out, and without its status."""
    metadata = {"namespace": DEFAULT_NAMESPACE, **get_object(document, "metadata")}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": get_object(document, "spec")}


def file_refused(error: OSError, path: Path) -> ModelRefused:
    status = 507 if error.errno in _FULL else 500
    return ModelRefused(status, f"{path} cannot be written or read: {error.strerror or error}; check its folder")
