"""Creation, replacement and deletion of Models for the client of the current request.

- The API key decides where: a Model is made in the key's namespace, and only Models of that namespace are changed.
- A change is complete when this gateway's directory shows it, so that the client's next request finds the Model.
- Two gateways that make one Model write the same ``metadata.name``: the second one finds it and uses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from corral_core.base.json_fields import JsonObject, get_object
from corral_core.base.names import canonical_name
from corral_core.model.model import ModelSpec
from corral_server.gateway.auth.authenticator import CURRENT_KEY
from corral_server.gateway.directory.directory import Directory, FoundModel, ModelEntry
from corral_server.gateway.management.documents import (
    checked_spec,
    inherited_spec,
    model_document,
    named_source,
    names_of,
)
from corral_server.gateway.management.management import Management
from corral_server.gateway.management.names import metadata_name
from corral_server.gateway.management.store import (
    API,
    CREATED_BY,
    ModelExists,
    ModelMissing,
    ModelRefused,
    made_by_api,
)
from corral_server.wire.errors import ApiError

VISIBLE_TIMEOUT = 30.0
"""Seconds until a change must be in the directory. A watch shows it after some milliseconds, local mode in a second."""
_MAX_TEXT = 2000
"""Characters of an error of the store."""
_CHANGED = "the model was changed by another client at the same time, please try again"


@dataclass(frozen=True, slots=True)
class Change:
    """A Model as it is stored. ``made``: this request created it; ``before`` is the document that it replaced, if any.

    ``name`` is the client's name for it.
    """

    key: str
    name: str
    spec: ModelSpec
    made: bool = True
    before: JsonObject | None = None

    def shown_by(self, entry: ModelEntry) -> bool:
        """Return whether the entry knows this version, though a pull may have to end before it is served."""
        return entry.latest_spec == self.spec and (entry.needs_pull or entry.reconciled)

    def served_by(self, entry: ModelEntry) -> bool:
        """Return whether this version is pulled, and its weights are known."""
        current = entry.model.spec == self.spec and entry.reconciled
        return current and not entry.needs_pull and entry.metadata is not None

    def failure(self, entry: ModelEntry) -> str | None:
        """Return why this version cannot be served, None if nothing is known of that.

        A version that is withdrawn after a failure is not tried again, so its error names no next attempt.
        """
        if not self.shown_by(entry):
            return None
        reason = entry.latest_problem if entry.latest is not None else entry.unavailable_reason
        withdrawn = self.made or self.before is not None
        return entry.pull_problem if withdrawn and reason and entry.pull_problem else reason


class ModelChanges:
    """``directory`` is what the client sees. All methods may raise ApiError."""

    def __init__(self, management: Management, directory: Directory) -> None:
        self._store = management.models
        self._policy = management.policy
        self._directory = directory
        self._waiting: set[asyncio.Event] = set()
        directory.subscribe(self._directory_changed)

    def namespace(self, name: str) -> str:
        """Return where the client may make a Model of this name. Raises ApiError 403."""
        key = CURRENT_KEY.get()
        namespace = self._policy.namespace_of(key)
        own = self._own_name(name, namespace)
        if key is not None:
            canonical = canonical_name(own)
            if not key.allows(canonical) and not key.allows(f"{namespace}/{canonical}"):
                raise ApiError(403, f"this API key does not allow model '{name}'")
        return namespace

    def source_spec(self, name: str) -> dict[str, object]:
        """Return the spec of a Model with the source that a name or a URI means."""
        return named_source(name, self._policy)

    def uploaded_spec(self, source: str) -> dict[str, object]:
        """Return the spec of a Model of a file that the client uploaded."""
        return {**self._policy.defaults(source), "source": source}

    def base_spec(self, found: FoundModel, name: str) -> dict[str, object]:
        """Return the spec of a new Model ``name`` that serves what was found."""
        namespace = self.namespace(name)
        return inherited_spec(found, namespace, name=self._own_name(name, namespace))

    async def pull(self, name: str) -> Change:
        """Make a Model for a name that the client cannot find, or return the one that another client just made."""
        namespace = self.namespace(name)
        own = self._own_name(name, namespace)
        document = model_document(own, namespace, named_source(own, self._policy))
        key = f"{namespace}/{metadata_name(own)}"
        try:
            with _store_errors():
                await self._store.create(document)
        except ModelExists:
            existing = await self._existing(key, own)
            return Change(key, name, checked_spec(existing), made=False)
        return await self._stored(Change(key, name, checked_spec(document)))

    async def put(self, name: str, spec: JsonObject) -> Change:
        """Create the Model, or replace the one that has the name in the client's namespace."""
        namespace = self.namespace(name)
        own = self._own_name(name, namespace)
        found = self._directory.find(name)
        if found is not None and self._may_change(found.entry.model.namespace):
            return await self._replace(found, own, spec)
        if found is not None and not self._own_names_first():
            raise ApiError(403, f"model '{name}' belongs to namespace {found.entry.model.namespace}: use another name")
        document = model_document(own, namespace, spec)
        key = f"{namespace}/{metadata_name(own)}"
        try:
            with _store_errors():
                await self._store.create(document)
        except ModelExists:
            before = await self._existing(key, own)
            self._check_managed(key, before, name)
            return await self._update(document, Change(key, name, checked_spec(document), made=False, before=before))
        return await self._stored(Change(key, name, checked_spec(document)))

    async def copy(self, found: FoundModel, name: str) -> None:
        """Make the Model ``name`` as a copy of what was found, and wait until the client can use it."""
        spec = self.base_spec(found, name)
        existing = self._directory.find(name)
        if existing is None or (existing.entry.key, existing.name) != (found.entry.key, found.name):
            await self.visible(await self.put(name, spec))

    async def delete(self, found: FoundModel) -> None:
        """Delete the Model, and return when the client finds it no more."""
        entry = found.entry
        self._policy.namespace_of(CURRENT_KEY.get())
        if not self._may_change(entry.model.namespace):
            raise ApiError(403, f"model '{found.name}' belongs to namespace {entry.model.namespace}: use a key of it")
        self._check_one_name(found, await self._managed(found))
        with suppress(ModelMissing), _store_errors():
            await self._store.delete(entry.key)
        await self._until(lambda: self._gone(entry), f"the Model {entry.key} is still being deleted")

    async def undo(self, change: Change) -> None:
        """Delete what this request made, or restore what it replaced. A Model that has gone meanwhile stays so."""
        with suppress(ModelMissing, ModelRefused):
            if change.before is not None:
                await self._store.update(change.before)
            elif change.made:
                await self._store.delete(change.key)

    async def discard(self, entry: ModelEntry) -> bool:
        """Delete a Model that a client made and whose weights were never found; return whether it is gone."""
        try:
            if entry.metadata is not None or not made_by_api(await self._store.read(entry.key)):
                return False
            await self._store.delete(entry.key)
        except ModelMissing:
            return True
        except ModelRefused:
            return False
        return True

    async def visible(self, change: Change) -> None:
        """Wait until the client finds the Model by its name; otherwise undo the change and raise ApiError 500."""
        text = (
            f"the Model {change.key} was not visible as '{change.name}' within {VISIBLE_TIMEOUT:g} s and was "
            "withdrawn: check that the operator runs, and that the namespace is watched and no older Model has the name"
        )
        try:
            await self._until(lambda: self._shows(change), text)
        except ApiError:
            await self.undo(change)
            raise

    def _own_name(self, name: str, namespace: str) -> str:
        """Return the name without the client's own namespace. Raises ApiError 403 for a name of another one."""
        first, slash, rest = canonical_name(name).partition("/")
        if not slash or "/" in rest:
            return name
        if first == namespace:
            return name.partition("/")[2]
        if any(entry.model.namespace == first for entry in self._directory.entries()):
            raise ApiError(403, f"'{name}' names a Model of namespace {first}: you may only make Models in {namespace}")
        return name

    def _may_change(self, namespace: str) -> bool:
        key = CURRENT_KEY.get()
        own = self._policy.namespace if key is None else key.namespace
        return not own or own == namespace

    def _own_names_first(self) -> bool:
        """Return whether plain names mean the Models of the client's own namespace before those of shared ones."""
        key = CURRENT_KEY.get()
        return key is not None and bool(key.namespace)

    async def _replace(self, found: FoundModel, own: str, spec: JsonObject) -> Change:
        model = found.entry.model
        before = await self._managed(found)
        self._check_one_name(found, before)
        document = model_document(own, model.namespace, spec, metadata=model.name)
        labels = {name: text for name, text in get_object(before, "metadata", "labels").items() if name != CREATED_BY}
        mine = {CREATED_BY: API} if made_by_api(before) else {}
        document["metadata"] = {**get_object(document, "metadata"), "labels": {**labels, **mine}}
        change = Change(model.key, found.name, checked_spec(document), made=False, before=before)
        return await self._update(document, change)

    async def _update(self, document: JsonObject, change: Change) -> Change:
        try:
            with _store_errors():
                await self._store.update(document)
        except ModelMissing:
            raise ApiError(503, _CHANGED, retry_after=1) from None
        return await self._stored(change)

    async def _stored(self, change: Change) -> Change:
        """Return the change with the spec that is stored: admission policies of a cluster may have added fields."""
        try:
            with _store_errors():
                return replace(change, spec=checked_spec(await self._store.read(change.key)))
        except ModelMissing:
            raise ApiError(503, _CHANGED, retry_after=1) from None

    async def _existing(self, key: str, own: str) -> JsonObject:
        """Return the Model that another client made under this name meanwhile."""
        try:
            with _store_errors():
                document = await self._store.read(key)
        except ModelMissing:
            raise ApiError(503, _CHANGED, retry_after=1) from None
        if canonical_name(own) not in names_of(document):
            raise ApiError(409, f"the Model {key} exists but has other names: rename or delete it with kubectl")
        return document

    async def _managed(self, found: FoundModel) -> JsonObject:
        """Return the document of a Model that the API may change. Raises ApiError 403 for any other."""
        key = found.entry.key
        try:
            with _store_errors():
                document = await self._store.read(key)
        except ModelMissing:
            document = {}
        self._check_managed(key, document, found.name)
        return document

    def _check_managed(self, key: str, document: JsonObject, name: str) -> None:
        if not document or not (made_by_api(document) or self._policy.manage_all):
            namespace, _, model = key.partition("/")
            raise ApiError(
                403,
                f"model '{name}' is the Model {key}, which was not made by this API: change it where it is defined "
                f"(kubectl -n {namespace} edit or delete model {model}; in local mode its file), or use another name",
            )

    def _check_one_name(self, found: FoundModel, document: JsonObject) -> None:
        """A change of a Model with several names would change the others as well."""
        if names_of(document) - {found.name}:
            raise ApiError(
                403,
                f"model '{found.name}' is the Model {found.entry.key}, which has other names too: change it with "
                "kubectl",
            )

    def _shows(self, change: Change) -> bool:
        found = self._directory.find(change.name)
        return found is not None and found.entry.key == change.key and change.shown_by(found.entry)

    def _gone(self, entry: ModelEntry) -> bool:
        now = self._directory.get(entry.key)
        return now is None or now.model.uid != entry.model.uid

    async def _until(self, condition: Callable[[], bool], failure: str) -> None:
        """Wait until a change of the directory makes the condition true. Raises ApiError 500 after VISIBLE_TIMEOUT."""
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            async with asyncio.timeout(VISIBLE_TIMEOUT):
                while not condition():
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            raise ApiError(500, failure) from None
        finally:
            self._waiting.discard(changed)

    def _directory_changed(self, key: str) -> None:
        for changed in self._waiting:
            changed.set()


@contextmanager
def _store_errors() -> Iterator[None]:
    """Raise a refusal of the store as the ApiError for the client, with a text of bounded length."""
    try:
        yield
    except ModelRefused as error:
        raise ApiError(error.status, str(error)[:_MAX_TEXT]) from None
