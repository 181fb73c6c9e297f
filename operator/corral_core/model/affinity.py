"""``spec.pod.affinity`` with the fields of the Kubernetes API (``v1.Affinity``).

Every level is declared, so that the API server bounds the depth and the size of a Model: an object with free-form
fields could be nested without a limit.
"""

from __future__ import annotations

from typing import Annotated, Literal, Required

from pydantic import Field
from typing_extensions import TypedDict

from corral_core.model.declared_fields import declared_fields

MAX_TERMS = 16
"""Terms, preferences and requirements of one list. Each is evaluated for each node of the cluster."""

_LabelKey = Annotated[str, Field(max_length=317)]
_Values = Annotated[list[Annotated[str, Field(max_length=253)]], Field(max_length=256)]
_Weight = Annotated[int, Field(ge=1, le=100)]


@declared_fields
class NodeRequirement(TypedDict, total=False):
    key: Required[_LabelKey]
    operator: Required[Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]]
    values: _Values


@declared_fields
class NodeTerm(TypedDict, total=False):
    matchExpressions: Annotated[list[NodeRequirement], Field(max_length=MAX_TERMS)]
    matchFields: Annotated[list[NodeRequirement], Field(max_length=MAX_TERMS)]


@declared_fields
class NodeTerms(TypedDict):
    nodeSelectorTerms: Annotated[list[NodeTerm], Field(max_length=MAX_TERMS)]


@declared_fields
class NodePreference(TypedDict):
    weight: _Weight
    preference: NodeTerm


@declared_fields
class NodeAffinity(TypedDict, total=False):
    requiredDuringSchedulingIgnoredDuringExecution: NodeTerms
    preferredDuringSchedulingIgnoredDuringExecution: Annotated[list[NodePreference], Field(max_length=MAX_TERMS)]


@declared_fields
class LabelRequirement(TypedDict, total=False):
    key: Required[_LabelKey]
    operator: Required[Literal["In", "NotIn", "Exists", "DoesNotExist"]]
    values: _Values


@declared_fields
class LabelSelector(TypedDict, total=False):
    matchLabels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64)]
    matchExpressions: Annotated[list[LabelRequirement], Field(max_length=MAX_TERMS)]


@declared_fields
class PodTerm(TypedDict, total=False):
    topologyKey: Required[_LabelKey]
    labelSelector: LabelSelector
    namespaceSelector: LabelSelector
    namespaces: Annotated[list[Annotated[str, Field(max_length=63)]], Field(max_length=64)]
    matchLabelKeys: Annotated[list[_LabelKey], Field(max_length=64)]
    mismatchLabelKeys: Annotated[list[_LabelKey], Field(max_length=64)]


@declared_fields
class PodPreference(TypedDict):
    weight: _Weight
    podAffinityTerm: PodTerm


@declared_fields
class PodAffinity(TypedDict, total=False):
    requiredDuringSchedulingIgnoredDuringExecution: Annotated[list[PodTerm], Field(max_length=MAX_TERMS)]
    preferredDuringSchedulingIgnoredDuringExecution: Annotated[list[PodPreference], Field(max_length=MAX_TERMS)]


@declared_fields
class Affinity(TypedDict, total=False):
    nodeAffinity: NodeAffinity
    podAffinity: PodAffinity
    podAntiAffinity: PodAffinity
