"""``spec.pod``: overrides for the runner pod, with the types of the Kubernetes API.

- Values stay plain dicts, which manifests include unchanged.
- They are validated like the CRD does, so that a Model file means the same with and without a cluster.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Literal, Required, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from corral_core.model.affinity import Affinity
from corral_core.model.declared_fields import declared_fields

DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_SUBDOMAIN = rf"{DNS_LABEL}(\.{DNS_LABEL})*"
LABEL_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
QUALIFIED_NAME = rf"({DNS_SUBDOMAIN}/)?{LABEL_NAME}"
ENV_NAME = r"[-._a-zA-Z][-._a-zA-Z0-9]*"
QUANTITY = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)(([KMGTPE]i)|[numkMGTPE]|([eE][+-]?[0-9]{1,2}))?"
MAX_QUANTITY = 64
"""Characters, as in ``corral_core.base.quantities``."""
NO_HTTP_PROXY = (
    "another variable than HTTP_PROXY: weights are pulled by HTTPS alone, and a proxy for plain HTTP would intercept "
    "the connections between the parts of Corral; set spec.proxy.httpsProxy"
)
RESERVED_PREFIX = "corral.dev/"
"""Prefix of labels and annotations that only Corral sets."""


NamedItems = TypeVar("NamedItems", bound="list[EnvVar] | list[SecretReference]")


def validation_error(allowed: str, **context: object) -> PydanticCustomError:
    """Build a validator's error; ``allowed`` is the text that the user reads.

    A check over several fields adds the ``field`` to change and its ``value`` to the context. A value that may hold
    secrets is replaced by ``shown`` in the error.
    """
    texts = {"allowed": allowed, **context}
    return PydanticCustomError("corral", "{allowed}", {name: _encodable(value) for name, value in texts.items()})


def _encodable(value: object) -> object:
    """Escape halves of surrogate pairs, for which pydantic raises UnicodeEncodeError in place of its error."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def pattern_validator(expression: str, allowed: str, *, maximum: int = 253) -> AfterValidator:
    """Build a validator for strings that match entirely and have at most ``maximum`` characters."""
    compiled = re.compile(expression)

    def check(text: str) -> str:
        if len(text) > maximum or not compiled.fullmatch(text):
            raise validation_error(f"{allowed}, at most {maximum} characters")
        return text

    return AfterValidator(check)


def _check_quantity(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    if isinstance(value, str) and len(value) <= MAX_QUANTITY and re.fullmatch(QUANTITY, value):
        return value
    raise validation_error(
        f"a quantity such as 2, 500m or 4Gi, at most {MAX_QUANTITY} characters and two digits after e"
    )


def _check_qualified_name(key: str) -> str:
    prefix, _, name = key.rpartition("/")
    if not re.fullmatch(QUALIFIED_NAME, key) or len(prefix) > 253 or len(name) > 63:
        raise validation_error("a key like app or example.com/app")
    return key


def _check_not_reserved(key: str) -> str:
    if key.startswith(RESERVED_PREFIX):
        raise validation_error(f"a key without the prefix {RESERVED_PREFIX}, which is reserved for Corral")
    return key


def check_unique_names(items: NamedItems) -> NamedItems:
    counts = Counter(item["name"] for item in items)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise validation_error(f"unique names ({', '.join(twice)} is repeated)")
    return items


def check_variable(variable: EnvVar) -> EnvVar:
    if "value" in variable and "valueFrom" in variable:
        raise validation_error("either value or valueFrom, not both")
    if variable["name"].upper() == "HTTP_PROXY":
        raise validation_error(NO_HTTP_PROXY)
    return variable


Subdomain = Annotated[str, pattern_validator(DNS_SUBDOMAIN, "lower-case letters, digits, '-' and '.'")]
RuntimeClass = Annotated[str, pattern_validator(f"({DNS_SUBDOMAIN})?", "lower-case letters, digits, '-' and '.'")]
LabelValue = Annotated[str, pattern_validator(f"({LABEL_NAME})?", "letters, digits, '-', '_' and '.'", maximum=63)]
ResourceName = Annotated[str, pattern_validator(QUALIFIED_NAME, "a resource name such as nvidia.com/gpu")]
Quantity = Annotated[str | int, BeforeValidator(_check_quantity)]
Key = Annotated[str, AfterValidator(_check_qualified_name)]
UserKey = Annotated[Key, AfterValidator(_check_not_reserved)]


@declared_fields
class Resources(TypedDict, total=False):
    limits: Annotated[dict[Key, Quantity], Field(max_length=32)]
    requests: Annotated[dict[Key, Quantity], Field(max_length=32)]


@declared_fields
class TolerationSpec(TypedDict, total=False):
    key: Annotated[str, Field(max_length=317)]
    operator: Literal["Exists", "Equal"]
    value: Annotated[str, Field(max_length=63)]
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
    tolerationSeconds: Annotated[int, Field(ge=-(2**63), lt=2**63)]


@declared_fields
class KeyReference(TypedDict, total=False):
    name: Annotated[str, Field(max_length=253)]
    key: Required[Annotated[str, Field(max_length=253)]]
    optional: bool


@declared_fields
class FieldReference(TypedDict, total=False):
    apiVersion: Annotated[str, Field(max_length=63)]
    fieldPath: Required[Annotated[str, Field(max_length=1024)]]


@declared_fields
class ResourceReference(TypedDict, total=False):
    containerName: Annotated[str, Field(max_length=63)]
    resource: Required[Annotated[str, Field(max_length=317)]]
    divisor: Quantity


@declared_fields
class EnvSource(TypedDict, total=False):
    configMapKeyRef: KeyReference
    secretKeyRef: KeyReference
    fieldRef: FieldReference
    resourceFieldRef: ResourceReference


@declared_fields
class EnvVar(TypedDict, total=False):
    name: Required[Annotated[str, pattern_validator(ENV_NAME, "letters, digits, '_', '-' and '.'")]]
    value: Annotated[str, Field(max_length=32_768)]
    valueFrom: EnvSource


@declared_fields
class SecretReference(TypedDict):
    name: Subdomain


class PodOverrides(BaseModel):
    """Overrides for the runner pod; unset fields keep the operator's values."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, strict=True)

    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    resources: Resources = Field(default_factory=Resources)
    node_selector: dict[Key, LabelValue] = Field(default_factory=dict, max_length=64)
    tolerations: list[TolerationSpec] = Field(default_factory=list, max_length=64)
    affinity: Affinity | None = None
    env: Annotated[list[Annotated[EnvVar, AfterValidator(check_variable)]], AfterValidator(check_unique_names)] = Field(
        default_factory=list, max_length=256
    )
    labels: dict[UserKey, LabelValue] = Field(default_factory=dict, max_length=64)
    annotations: dict[UserKey, Annotated[str, Field(max_length=65_536)]] = Field(default_factory=dict, max_length=64)
    image_pull_secrets: Annotated[list[SecretReference], AfterValidator(check_unique_names)] = Field(
        default_factory=list, max_length=32
    )
    priority_class_name: Subdomain | None = None
