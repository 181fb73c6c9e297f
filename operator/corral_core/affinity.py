"""Required node affinity: which labels a node must have, in the terms of the Kubernetes API.

Of several terms one has to hold, of a term's expressions all. A term without expressions holds for no node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corral_core.jsonfields import Json, mapping, objects, text

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_NAME = "metadata.name"


@dataclass(frozen=True, slots=True)
class Expression:
    """``operator`` is In, NotIn, Exists, DoesNotExist, Gt or Lt; any other holds for no node."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        if self.operator == "In":
            return value in self.values
        if self.operator == "NotIn":
            return value not in self.values
        if self.operator == "Exists":
            return value is not None
        if self.operator == "DoesNotExist":
            return value is None
        return self._compares(value)

    def _compares(self, value: str | None) -> bool:
        if value is None or len(self.values) != 1:
            return False
        try:
            there, bound = int(value), int(self.values[0])
        except ValueError:
            return False
        return there > bound if self.operator == "Gt" else there < bound if self.operator == "Lt" else False


@dataclass(frozen=True, slots=True)
class Term:
    """``labels`` are looked up in the node's labels, ``fields`` in its fields, of which there is only the name."""

    labels: tuple[Expression, ...] = ()
    fields: tuple[Expression, ...] = ()

    def holds(self, name: str, labels: Mapping[str, str]) -> bool:
        if not self.labels and not self.fields:
            return False
        fields = {_NAME: name}
        return all(each.holds(labels) for each in self.labels) and all(each.holds(fields) for each in self.fields)


Terms = tuple[Term, ...]


def required_terms(affinity: Json) -> Terms | None:
    """The terms of a pod's ``affinity``; None when it requires nothing of a node."""
    required = mapping(affinity, "nodeAffinity", _REQUIRED)
    if not required:
        return None
    return tuple(
        Term(_expressions(term, "matchExpressions"), _expressions(term, "matchFields"))
        for term in objects(required, "nodeSelectorTerms")
    )


def _expressions(term: Json, field: str) -> tuple[Expression, ...]:
    return tuple(
        Expression(text(item, "key"), text(item, "operator"), _texts(item.get("values")))
        for item in objects(term, field)
    )


def _texts(values: object) -> tuple[str, ...]:
    return tuple(str(value) for value in values) if isinstance(values, list) else ()
