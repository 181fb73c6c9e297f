"""Required node affinity, with the types and semantics of the Kubernetes API (``v1.NodeSelector``).

- Terms are ORed, the requirements of one term are ANDed.
- An empty term matches no node, as in the scheduler (``component-helpers/scheduling/corev1/nodeaffinity``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from corral_core.base.json_fields import JsonObject, get_object, get_objects, get_str

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_NAME = "metadata.name"


@dataclass(frozen=True, slots=True)
class NodeSelectorRequirement:
    """``operator`` is In, NotIn, Exists, DoesNotExist, Gt or Lt; any other matches no node."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        if self.operator == "In":
            return value in self.values
        if self.operator == "NotIn":
            return value not in self.values
        if self.operator == "Exists":
            return value is not None
        if self.operator == "DoesNotExist":
            return value is None
        return self._matches_number(value)

    def to_json(self) -> dict[str, object]:
        return {"key": self.key, "operator": self.operator, **({"values": list(self.values)} if self.values else {})}

    def _matches_number(self, value: str | None) -> bool:
        if value is None or len(self.values) != 1:
            return False
        try:
            number, bound = int(value), int(self.values[0])
        except ValueError:
            return False
        return number > bound if self.operator == "Gt" else number < bound if self.operator == "Lt" else False


@dataclass(frozen=True, slots=True)
class NodeSelectorTerm:
    """``match_expressions`` apply to the node's labels, ``match_fields`` to its only field, metadata.name."""

    match_expressions: tuple[NodeSelectorRequirement, ...] = ()
    match_fields: tuple[NodeSelectorRequirement, ...] = ()

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        if not self.match_expressions and not self.match_fields:
            return False
        fields = {_NAME: name}
        return all(each.matches(labels) for each in self.match_expressions) and all(
            each.matches(fields) for each in self.match_fields
        )

    def to_json(self) -> dict[str, object]:
        lists = {"matchExpressions": self.match_expressions, "matchFields": self.match_fields}
        return {name: [each.to_json() for each in found] for name, found in lists.items() if found}


NodeSelectorTerms = tuple[NodeSelectorTerm, ...]


def required_node_affinity(affinity: JsonObject) -> NodeSelectorTerms | None:
    """Parse the required terms of a pod's ``affinity``; None if it has no node requirement."""
    required = get_object(affinity, "nodeAffinity", _REQUIRED)
    if not required:
        return None
    return node_selector_terms(get_objects(required, "nodeSelectorTerms"))


def with_required_terms(affinity: JsonObject, terms: NodeSelectorTerms) -> JsonObject:
    """Return a pod's ``affinity`` with these required terms instead of its own."""
    node = {
        **get_object(affinity, "nodeAffinity"),
        _REQUIRED: {"nodeSelectorTerms": [each.to_json() for each in terms]},
    }
    return {**affinity, "nodeAffinity": node}


def node_selector_terms(terms: Iterable[JsonObject]) -> NodeSelectorTerms:
    """Parse terms in the form of the API."""
    return tuple(
        NodeSelectorTerm(_expressions(term, "matchExpressions"), _expressions(term, "matchFields")) for term in terms
    )


def _expressions(term: JsonObject, field: str) -> tuple[NodeSelectorRequirement, ...]:
    return tuple(
        NodeSelectorRequirement(get_str(item, "key"), get_str(item, "operator"), _texts(item.get("values")))
        for item in get_objects(term, field)
    )


def _texts(values: object) -> tuple[str, ...]:
    return tuple(str(value) for value in values) if isinstance(values, list) else ()
