"""Model store of local mode: one YAML file for each Model that a client created, in a folder of its own.

- Only files of this folder are written, and only those that the store named: ``name.yaml``, or ``namespace_name.yaml``
  outside of the default namespace. Names of Kubernetes have no ``_``, so two Models never have the same file, and no
  ``/`` or ``.``, so a file is always in the folder.
- A file is replaced as a whole and synced: after a crash it has the old Model or the new one.
- A change is applied, and the gateway finds the Model, when the method returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from corral_core.base.json_fields import JsonObject
from corral_server.gateway.management.store import ModelExists, ModelMissing, ModelRefused
from corral_server.local.management.model_documents import (
    encoded_model,
    file_refused,
    model_path,
    read_documents,
    write_model,
)
from corral_server.system.durable_files import sync_folder


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
        model, data = await asyncio.to_thread(encoded_model, resource)
        async with self._lock:
            path = model_path(self._folder, model.key)
            defined = self._find(model.key) or (path if path.exists() else None)
            if defined is not None:
                raise ModelExists(f"the Model {model.key} exists, in the file {defined}")
            await self._write(path, data)

    async def update(self, resource: JsonObject) -> None:
        """Replace a Model. Raises ModelMissing and ModelRefused."""
        model, data = await asyncio.to_thread(encoded_model, resource)
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
                raise file_refused(error, path) from error
            await self._refresh()
        await self._released(before)

    async def read(self, key: str) -> JsonObject:
        """Return the document of a Model in any served file. Raises ModelMissing and ModelRefused."""
        path = self._find(key)
        if path is None:
            raise ModelMissing(f"there is no Model {key}")
        documents = await asyncio.to_thread(read_documents, path)
        if key not in documents:
            raise ModelRefused(409, f"the file {path} was changed and no longer has the Model {key}: try again")
        return documents[key]

    def _own_file(self, key: str) -> Path:
        """Return the Model's file if the store wrote it. Raises ModelMissing and ModelRefused."""
        path = self._find(key)
        if path is None:
            raise ModelMissing(f"there is no Model {key}")
        if path != model_path(self._folder, key):
            raise ModelRefused(
                403, f"the Model {key} is defined in {path}, which is not changed by the API: change or remove the file"
            )
        return path

    async def _write(self, path: Path, data: bytes) -> None:
        try:
            await asyncio.to_thread(write_model, path, data)
        except OSError as error:
            raise file_refused(error, path) from error
        await self._refresh()


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def _read_single(path: Path, key: str) -> JsonObject:
    """Return the Model of a file that has no other. Raises ModelRefused."""
    documents = read_documents(path)
    if list(documents) != [key]:
        raise ModelRefused(409, f"the file {path} has other Models than {key}: change the file instead")
    return documents[key]
