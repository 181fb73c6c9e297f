"""Models as the API server returns them, and which one a user means."""

from __future__ import annotations

from collections.abc import Sequence

from corral_core.base.errors import CorralError, InvalidModel, InvalidName
from corral_core.base.json_fields import JsonObject, get_objects, get_str
from corral_core.base.names import canonical_name
from corral_core.model.model import GROUP, PLURAL, VERSION
from corral_core.model.resource import client_names, parse_model
from corral_kube.client import KubeClient


class CommandFailed(CorralError):
    """The command cannot do what was asked; the text says why and what to do."""


def models_path(namespace: str) -> str:
    """Return the path of the Models of a namespace, of all if it is empty."""
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/{GROUP}/{VERSION}{scope}/{PLURAL}"


async def list_models(kube: KubeClient, namespace: str) -> Sequence[JsonObject]:
    """Return the Models by namespace and name. Raises KubeError."""
    found = await kube.list(models_path(namespace))
    return sorted(found.items, key=lambda item: (get_str(item, "metadata", "namespace"), name_of(item)))


async def get_model(kube: KubeClient, namespace: str, name: str) -> JsonObject:
    """Return the Model by its ``metadata.name``, or by a name that clients use. Raises CommandFailed, KubeError."""
    found = chosen(await list_models(kube, namespace), name)
    if found is None:
        raise CommandFailed(f"namespace {namespace} has no Model {name}; `kubectl corral status -A` lists all Models")
    return found


def chosen(items: Sequence[JsonObject], name: str) -> JsonObject | None:
    """Return the Model that the name means; a ``metadata.name`` goes before a name of ``spec.names``."""
    exact = next((item for item in items if name_of(item) == name), None)
    if exact is not None:
        return exact
    try:
        wanted = canonical_name(name)
    except InvalidName:
        return None
    return next((item for item in items if wanted in names_of(item)), None)


def names_of(item: JsonObject) -> tuple[str, ...]:
    """Return the canonical names by which clients reach the Model, none for an invalid one."""
    try:
        return client_names(parse_model(item))
    except InvalidModel:
        return ()


def client_name(item: JsonObject) -> str:
    """Return the name by which every client can address the Model: ``namespace/name``."""
    return f"{get_str(item, 'metadata', 'namespace')}/{name_of(item)}"


def name_of(item: JsonObject) -> str:
    return get_str(item, "metadata", "name")


def condition(item: JsonObject, kind: str) -> JsonObject:
    """Return the condition of this type, an empty object without one."""
    found = (each for each in get_objects(item, "status", "conditions") if get_str(each, "type") == kind)
    return next(found, {})
