"""Directory restricted to what the current API key allows: namespaces and models.

- All lists and descriptions of models are built from a Directory, so the restriction applies to each of them.
- A pattern of the key allows a model if it matches one of the names by which the key reaches that very model: the
  name that was requested, its plain name, or ``namespace/name``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from corral_core.base.errors import InvalidName
from corral_core.base.names import canonical_name
from corral_core.model.name_index import EVERYWHERE, Scope
from corral_server.gateway.auth.authenticator import CURRENT_KEY
from corral_server.gateway.auth.key_file import ApiKey
from corral_server.gateway.directory.directory import Directory, FoundModel, ModelEntry, ObservedState
from corral_server.wire.errors import ApiError


class AuthorizedDirectory:
    """Implements ``Directory`` on top of another one."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def authorize(self, name: str) -> None:
        """Raise ApiError 403 if the current key does not allow the model, whether it exists or not."""
        key = CURRENT_KEY.get()
        if key is None:
            return
        try:
            allowed = self._allows(key, name)
        except InvalidName:
            return  # no model has this name; the lookup reports the error
        if not allowed:
            raise ApiError(403, f"this API key does not allow model '{name}'")

    def find(self, name: str, scope: Scope = EVERYWHERE) -> FoundModel | None:
        """Raises InvalidName."""
        key = CURRENT_KEY.get()
        if key is None:
            return self._directory.find(name, scope)
        return self._directory.find(name, key.namespaces) if self._allows(key, name) else None

    def sees(self, scope: Scope, namespace: str) -> bool:
        return self._directory.sees(scope, namespace)

    def displayed_names(self, key: str, scope: Scope) -> tuple[str, ...]:
        return self._directory.displayed_names(key, scope)

    def get(self, key: str) -> ModelEntry | None:
        return self._directory.get(key)

    def observed(self, key: str) -> ObservedState | None:
        return self._directory.observed(key)

    def entries(self) -> Sequence[ModelEntry]:
        """Return the Models of the current key, each with the names by which it reaches them."""
        key = CURRENT_KEY.get()
        if key is None:
            return self._directory.entries()
        visible = []
        for entry in self._directory.entries():
            if self._directory.sees(key.namespaces, entry.model.namespace):
                shown = self._directory.displayed_names(entry.key, key.namespaces)
                names = tuple(name for name in shown if self._allows(key, name))
                if names:
                    visible.append(entry if names == entry.names else replace(entry, names=names))
        return visible

    def subscribe(self, changed: Callable[[str], None]) -> None:
        self._directory.subscribe(changed)

    def report_demand(self, key: str, pending: int, oldest: float | None) -> None:
        self._directory.report_demand(key, pending, oldest)

    def want_context(self, key: str, length: int) -> None:
        self._directory.want_context(key, length)

    def want_pull(self, key: str, wanted: bool) -> None:
        self._directory.want_pull(key, wanted)

    def synced(self) -> bool:
        return self._directory.synced()

    def _allows(self, key: ApiKey, name: str) -> bool:
        """Return whether the key allows the name. Raises InvalidName."""
        requested = canonical_name(name)
        found = self._directory.find(name, key.namespaces)
        if found is None:
            namespace, slash, rest = requested.partition("/")
            foreign = slash and "/" not in rest and not self._directory.sees(key.namespaces, namespace)
            return not foreign and key.allows(requested)
        if key.allows(requested):
            return True
        if "/" not in found.name and key.allows(f"{found.entry.model.namespace}/{found.name}"):
            return True
        return found.name != requested and self._is(found, key.namespaces) and key.allows(found.name)

    def _is(self, found: FoundModel, scope: Scope) -> bool:
        """Return whether the found Model's own name addresses it, and not another one."""
        plain = self._directory.find(found.name, scope)
        return plain is not None and plain.entry.key == found.entry.key and plain.name == found.name
