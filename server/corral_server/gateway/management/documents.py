"""Model documents that the verbs write: pure functions.

A Model that a client makes has one name. The whole spec of a Model is inherited in its own namespace; in another one
the fields that refer to objects of a namespace, or that its administrator sets, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from corral_core.base.errors import InvalidModel, InvalidName, SourceError
from corral_core.base.json_fields import JsonObject, get_object
from corral_core.base.names import canonical_name, parse_name
from corral_core.model.model import API_VERSION, KIND, ModelSpec
from corral_core.model.resource import parse_model
from corral_core.sources.forms import ClaimSource
from corral_core.sources.uri import parse_source
from corral_server.gateway.directory.directory import FoundModel
from corral_server.gateway.management.names import metadata_name, source_of
from corral_server.gateway.management.policy import CreationPolicy
from corral_server.gateway.management.store import API, CREATED_BY
from corral_server.wire.errors import ApiError

_OWN: Final = ("names", "adapters", "replicas", "min_replicas", "suspend", "prefetch")
"""Fields that no other Model inherits."""
_OF_A_NAMESPACE: Final = ("cache", "proxy", "pod", "queue", "request_limits", "runtime_class_name")
"""Fields that only Models of the same namespace inherit."""


def model_document(name: str, namespace: str, spec: JsonObject, *, metadata: str = "") -> dict[str, object]:
    """Return the document of a Model that a client makes.

    ``metadata`` is its ``metadata.name``, by default the one that belongs to ``name``. A pull that its clients left
    stops, as in Ollama, so nothing is pulled before a client asks. Raises ApiError 400 for an invalid spec.
    """
    named = spec if has_adapter(spec) else {"names": [parse_name(name).short], **spec}
    document: dict[str, object] = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "namespace": namespace,
            "name": metadata or metadata_name(name),
            "labels": {CREATED_BY: API},
        },
        "spec": {"prefetch": False, **named},
    }
    checked_spec(document)
    return document


def checked_spec(document: JsonObject) -> ModelSpec:
    """Return the spec of a document. Raises ApiError 400."""
    try:
        return parse_model(document).spec
    except InvalidModel as error:
        raise ApiError(400, "; ".join(str(problem) for problem in error.problems)) from None


def has_adapter(spec: JsonObject) -> bool:
    """Return whether the Model's name is that of its adapter; the weights alone then have ``metadata.name`` only."""
    return bool(spec.get("adapters"))


def named_source(name: str, policy: CreationPolicy) -> dict[str, object]:
    """Return the spec of a Model with the source that a name or a URI means, over the defaults of its profile.

    Raises ApiError: 400 for a name or URI that means no source, 403 for a source that the policy forbids.
    """
    try:
        source = name if "://" in name else source_of(name)
    except InvalidName:
        raise ApiError(400, "invalid model name") from None
    except SourceError as error:
        raise ApiError(400, str(error)) from None
    policy.check_source(source)
    return {**policy.defaults(source), "source": source}


def inherited_spec(found: FoundModel, namespace: str, *, name: str) -> dict[str, object]:
    """Return the spec of a new Model ``name`` in ``namespace`` that serves what a client found.

    If the adapter of a Model was found, the new Model has that adapter, under its own name. Raises ApiError 400 for
    weights that only Models of the other namespace can reach.
    """
    model = found.entry.model
    spec = model.spec
    same = model.namespace == namespace
    if not same:
        _check_reachable(spec, found.name, model.namespace)
    left_out = {*_OWN, *(() if same else _OF_A_NAMESPACE)}
    result: dict[str, object] = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=left_out)
    adapters = [adapter for adapter in spec.adapters if canonical_name(adapter.name) == found.name]
    if adapters:
        dumped = [adapter.model_dump(mode="json", by_alias=True, exclude_defaults=True) for adapter in adapters]
        result["adapters"] = [{**each, "name": parse_name(name).short} for each in dumped]
    return result


def _check_reachable(spec: ModelSpec, name: str, namespace: str) -> None:
    sources = (spec.source, *(adapter.source for adapter in spec.adapters))
    if spec.source_secret_ref is not None or any(isinstance(parse_source(uri), ClaimSource) for uri in sources):
        what = "a Secret" if spec.source_secret_ref is not None else "a PersistentVolumeClaim"
        raise ApiError(
            400,
            f"the weights of '{name}' need {what} of namespace {namespace}: use an API key of that namespace, or apply "
            "a Model with kubectl",
        )


def names_of(document: JsonObject) -> frozenset[str]:
    """Return the canonical names that a document claims, besides ``metadata.name``."""
    spec = get_object(document, "spec")
    names = [each for each in _list(spec.get("names")) if isinstance(each, str)]
    names += [str(each["name"]) for each in _list(spec.get("adapters")) if isinstance(each, Mapping) and "name" in each]
    return frozenset(canonical_name(name) for name in names)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
