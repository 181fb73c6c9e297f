"""Model store of local mode: one YAML file for each Model that a client created, in a folder of its own.

- Only files of this folder are written, and only those that the store named: ``name.yaml``, or ``namespace_name.yaml``
  outside of the default namespace. Names of Kubernetes have no ``_``, so two Models never have the same file, and no
  ``/`` or ``.``, so a file is always in the folder.
- A file is replaced as a whole and synced: after a crash it has the old Model or the new one.
- A change is applied, and the gateway finds the Model, when the method returns.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import yaml

from corral_core.base.errors import InvalidModel
from corral_core.base.json_fields import JsonObject, get_object
from corral_core.model.documents import load_documents
from corral_core.model.model import API_VERSION, KIND, Model
from corral_core.model.resource import DEFAULT_NAMESPACE, parse_model
from corral_server.gateway.management.store import ModelExists, ModelMissing, ModelRefused
from corral_server.system.durable_files import sync_folder, write_durably

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class FileModelStore:
    """Implements ``ModelStore``.

    ``find`` returns the file that defines a served Model by its key, ``refresh`` reads the files and applies the
    result, and ``released`` is called with the document of each Model that was deleted or replaced.
    """

    def __init__(
        self,
        folder: Path,
        find: Callable[[str], Path | None],
        refresh: Callable[[], Awaitable[None]],
        *,
        released: Callable[[JsonObject], Awaitable[None]],
    ) -> None:
        self._folder = folder
        self._find = find
        self._refresh = refresh
        self._released = released
        self._lock = asyncio.Lock()

    async def create(self, resource: JsonObject) -> None:
        """Create a Model. Raises ModelExists and ModelRefused."""
        model, data = await asyncio.to_thread(_encoded, resource)
        async with self._lock:
            path = self._path(model.key)
            defined = self._find(model.key) or (path if path.exists() else None)
            if defined is not None:
                raise ModelExists(f"the Model {model.key} exists, in the file {defined}")
            await self._write(path, data)

    async def update(self, resource: JsonObject) -> None:
        """Replace a Model. Raises ModelMissing and ModelRefused."""
        model, data = await asyncio.to_thread(_encoded, resource)
        async with self._lock:
            path = self._own_file(model.key)
            before = await asyncio.to_thread(_read_single, path, model.key)
            await self._write(path, data)
        await self._released(before)

    async def delete(self, key: str) -> None:
        """Delete a Model and its file. Raises ModelMissing and ModelRefused."""
        async with self._lock:
            path = self._own_file(key)
            before = await asyncio.to_thread(_read_single, path, key)
            try:
                await asyncio.to_thread(_remove, path)
            except OSError as error:
                raise _refused(error, path) from error
            await self._refresh()
        await self._released(before)

    async def read(self, key: str) -> JsonObject:
        """Return the document of a Model in any served file. Raises ModelMissing and ModelRefused."""
        path = self._find(key)
        if path is None:
            raise ModelMissing(f"there is no Model {key}")
        documents = await asyncio.to_thread(_read, path)
        if key not in documents:
            raise ModelRefused(409, f"the file {path} was changed and no longer has the Model {key}: try again")
        return documents[key]

    def _path(self, key: str) -> Path:
        """Return the file of a Model whose namespace and name are valid."""
        namespace, _, name = key.partition("/")
        return self._folder / (f"{name}.yaml" if namespace == DEFAULT_NAMESPACE else f"{namespace}_{name}.yaml")

    def _own_file(self, key: str) -> Path:
        """Return the Model's file if the store wrote it. Raises ModelMissing and ModelRefused."""
        path = self._find(key)
        if path is None:
            raise ModelMissing(f"there is no Model {key}")
        if path != self._path(key):
            raise ModelRefused(
                403, f"the Model {key} is defined in {path}, which is not changed by the API: change or remove the file"
            )
        return path

    async def _write(self, path: Path, data: bytes) -> None:
        try:
            await asyncio.to_thread(_write, path, data)
        except OSError as error:
            raise _refused(error, path) from error
        await self._refresh()


def _encoded(resource: JsonObject) -> tuple[Model, bytes]:
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


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, data)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def _read(path: Path) -> dict[str, JsonObject]:
    """Return the documents of a file by the keys of their Models. Raises ModelRefused."""
    try:
        documents = list(load_documents(path.read_text("utf-8"), label="file"))
        return {parse_model(each).key: _complete(each) for each in documents if isinstance(each, Mapping)}
    except (InvalidModel, UnicodeDecodeError) as error:
        raise ModelRefused(409, f"the file {path} has errors; correct it first: {error}") from error
    except OSError as error:
        raise _refused(error, path) from error


def _read_single(path: Path, key: str) -> JsonObject:
    """Return the Model of a file that has no other. Raises ModelRefused."""
    documents = _read(path)
    if list(documents) != [key]:
        raise ModelRefused(409, f"the file {path} has other Models than {key}: change the file instead")
    return documents[key]


def _complete(document: JsonObject) -> JsonObject:
    """Return the document with the fields that a file may leave out, and without its status."""
    metadata = {"namespace": DEFAULT_NAMESPACE, **get_object(document, "metadata")}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": get_object(document, "spec")}


def _refused(error: OSError, path: Path) -> ModelRefused:
    status = 507 if error.errno in _FULL else 500
    return ModelRefused(status, f"{path} cannot be written or read: {error.strerror or error}; check its folder")
