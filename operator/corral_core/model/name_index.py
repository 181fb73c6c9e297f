"""Index of the names by which clients reach Models.

- ``namespace/name`` addresses a Model of that namespace, by its ``metadata.name`` or by a name in its spec. If the
  namespace has a Model, no Model of another namespace is found by such a name, whatever names its spec claims.
- A plain name addresses a Model of the caller's own namespaces, else one of the shared namespaces. Of several Models
  that claim a name the oldest has it; a Model that lost a name keeps its others.
- Every Model is found by its namespace and ``metadata.name``. (Except in a namespace ``library``: Ollama's names
  ``library/x`` and ``x`` are equal.)
- A change concerns the Models that get or lose a name by it, not all that claim the name: a namespace with thousands of
  Models of one name costs others nothing.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from corral_core.base.names import canonical_name
from corral_core.model.model import Model
from corral_core.model.resource import client_names

Scope = tuple[str, ...]
"""Namespaces that a caller sees, besides those that the installation shares by name: ``*`` stands for all.

Plain names are looked up in them in this order.
"""

EVERYWHERE: Scope = ("*",)
"""Scope of a caller without an API key."""


@dataclass(frozen=True, slots=True, order=True)
class NameClaim:
    """Claim of a Model to a name; the first in order has the name. ``name`` is the name as the Model's own."""

    rank: int
    created: float
    key: str
    name: str
    namespace: str


@dataclass(frozen=True, slots=True)
class LostName:
    """Name that another Model has. ``owner`` is that Model's key, or the namespace that the name addresses."""

    name: str
    owner: str


@dataclass(frozen=True, slots=True)
class _NamedModel:
    """Fields of a Model that its names depend on. ``own_name`` is its ``metadata.name`` with a tag."""

    key: str
    namespace: str
    own_name: str
    created: float
    names: tuple[str, ...]


class NameIndex:
    """``shared`` are the namespaces whose Models have plain names for every caller; empty: all."""

    def __init__(self, shared: Collection[str] = ()) -> None:
        self._shared = frozenset(shared)
        self._models: dict[str, _NamedModel] = {}
        self._plain: dict[str, list[NameClaim]] = {}
        self._in_namespace: dict[str, list[NameClaim]] = {}
        self._members: dict[str, int] = {}
        self._slashed: dict[str, set[str]] = {}
        """By first part, the keys of Models of shared namespaces with a name of two parts."""

    def put(self, model: Model) -> set[str]:
        """Add or replace a Model; return the keys of the Models that may have got or lost a name.

        For others that had lost the name before, ``lost`` may name another owner.
        """
        named = _NamedModel(model.key, model.namespace, f"{model.name}:latest", model.created, client_names(model))
        if self._models.get(model.key) == named:
            return set()
        affected = self.remove(model.key)
        self._models[model.key] = named
        for table, name, claim in self._claims(named):
            claims = table.setdefault(name, [])
            affected.update(owner.key for owner in claims[:1])
            insort(claims, claim)
        for first in self._shared_first_parts(named):
            self._slashed.setdefault(first, set()).add(model.key)
        self._members[model.namespace] = self._members.get(model.namespace, 0) + 1
        if self._members[model.namespace] == 1:
            affected |= self._slashed.get(model.namespace, set())
        return affected | {model.key}

    def remove(self, key: str) -> set[str]:
        """Remove a Model; return what ``put`` returns."""
        model = self._models.pop(key, None)
        if model is None:
            return set()
        affected = {key}
        for table, name, claim in self._claims(model):
            claims = table[name]
            claims.remove(claim)
            affected.update(owner.key for owner in claims[:1])
            if not claims:
                del table[name]
        for first in self._shared_first_parts(model):
            self._slashed[first].discard(key)
            if not self._slashed[first]:
                del self._slashed[first]
        self._members[model.namespace] -= 1
        if not self._members[model.namespace]:
            del self._members[model.namespace]
            affected |= self._slashed.get(model.namespace, set())
        return affected

    def sees(self, scope: Scope, namespace: str) -> bool:
        """Return whether a caller with this scope may reach Models of the namespace."""
        return "*" in scope or namespace in scope or namespace in self._shared

    def find(self, name: str, scope: Scope = EVERYWHERE) -> NameClaim | None:
        """Return the claim of the Model that a caller's name addresses. Raises InvalidName."""
        canonical = canonical_name(name)
        first = _first_part(canonical)
        if first and first in self._members:
            return _owner(self._in_namespace, canonical) if self.sees(scope, first) else None
        if scope is not EVERYWHERE:
            for namespace in scope:
                found = _owner(self._in_namespace, f"{namespace}/{canonical}")
                if found is not None:
                    return found
        found = _owner(self._plain, canonical)
        return found if found is not None and self.sees(scope, found.namespace) else None

    def displayed_names(self, key: str, scope: Scope = EVERYWHERE) -> tuple[str, ...]:
        """Return the canonical names by which a caller reaches the Model; none if the index does not have it."""
        model = self._models.get(key)
        if model is None:
            return ()
        shown: dict[str, None] = {}
        for name in model.names:
            spellings = (name,) if "/" in name else (name, f"{model.namespace}/{name}")
            reached = (spelling for spelling in spellings if self._reaches(spelling, scope, key))
            shown.update(dict.fromkeys(list(reached)[:1]))
        return tuple(shown) or (f"{model.namespace}/{model.own_name}",)

    def _reaches(self, name: str, scope: Scope, key: str) -> bool:
        found = self.find(name, scope)
        return found is not None and found.key == key

    def lost(self, key: str) -> tuple[LostName, ...]:
        """Return the names in the Model's spec that address another Model or namespace."""
        model = self._models.get(key)
        if model is None:
            return ()
        owners = ((name, self._owner_of(name, model.namespace)) for name in model.names)
        return tuple(LostName(name, owner) for name, owner in owners if owner != f"Model {key}")

    def _owner_of(self, name: str, namespace: str) -> str:
        """Return what a name in the spec of a Model of this namespace addresses."""
        first = _first_part(name)
        if first in self._members:
            if first != namespace:
                return f"namespace {first}"
            owner = _owner(self._in_namespace, name)
        elif self._shares(namespace):
            owner = _owner(self._plain, name)
        else:
            owner = _owner(self._in_namespace, f"{namespace}/{name}")
        return f"Model {owner.key if owner is not None else ''}"

    def _shares(self, namespace: str) -> bool:
        """Return whether the Models of the namespace have plain names for every caller."""
        return not self._shared or namespace in self._shared

    def _shared_first_parts(self, model: _NamedModel) -> set[str]:
        """Return the first parts of the names that are plain unless a namespace has this name."""
        return {first for name in model.names if (first := _first_part(name)) and self._shares(model.namespace)}

    def _claims(self, model: _NamedModel) -> Iterable[tuple[dict[str, list[NameClaim]], str, NameClaim]]:
        """Yield the model's claims, each with its table and the name there."""
        own = NameClaim(0, model.created, model.key, model.own_name, model.namespace)
        yield self._in_namespace, f"{model.namespace}/{model.own_name}", own
        for name in model.names:
            claim = NameClaim(1, model.created, model.key, name, model.namespace)
            if _first_part(name) == model.namespace:
                yield self._in_namespace, name, claim
                continue
            yield self._in_namespace, f"{model.namespace}/{name}", claim
            if self._shares(model.namespace):
                yield self._plain, name, claim


def lost_names(models: Iterable[Model]) -> dict[str, str]:
    """Return by key which names the Models lost, where all namespaces share their names."""
    index, known = NameIndex(), list(models)
    for model in known:
        index.put(model)
    return {model.key: lost_names_message(lost) for model in known if (lost := index.lost(model.key))}


def lost_names_message(lost: Iterable[LostName]) -> str:
    return ", ".join(f"the name {each.name} belongs to {each.owner}" for each in lost)


def _first_part(canonical: str) -> str:
    """Return the first part of a name of two parts, which may be a namespace; empty for any other name."""
    if "/" not in canonical:
        return ""
    first, _, rest = canonical.partition("/")
    return first if "/" not in rest else ""


def _owner(table: dict[str, list[NameClaim]], name: str) -> NameClaim | None:
    claims = table.get(name)
    return claims[0] if claims else None
