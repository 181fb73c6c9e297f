"""``spec.pod``: what a Model may say about its runner pod, in the shapes of the Kubernetes API.

The values stay plain dicts, so that a manifest takes them as they are; they are checked here as far as the CRD checks
them, so that a Model file means the same with and without a cluster.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Required, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_SUBDOMAIN = rf"{DNS_LABEL}(\.{DNS_LABEL})*"
LABEL_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
QUALIFIED_NAME = rf"({DNS_SUBDOMAIN}/)?{LABEL_NAME}"
ENV_NAME = r"[-._a-zA-Z][-._a-zA-Z0-9]*"
QUANTITY = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)(([KMGTPE]i)|[numkMGTPE]|([eE][+-]?[0-9]+))?"
OWN_DOMAIN = "corral.dev/"
"""Labels and annotations below this prefix are set by Corral itself."""


NamedItems = TypeVar("NamedItems", bound="list[EnvVar] | list[SecretReference]")


def refuse(allowed: str, **context: object) -> PydanticCustomError:
    """The error a validator raises; ``allowed`` is the text that a person reads.

    A check over several fields adds ``field`` and ``value`` to the context, to name the one to change.
    """
    return PydanticCustomError("corral", "{allowed}", {"allowed": allowed, **context})


def pattern(expression: str, allowed: str, *, maximum: int = 253) -> AfterValidator:
    """A check that a whole text matches and is at most ``maximum`` characters long."""
    compiled = re.compile(expression)

    def check(text: str) -> str:
        if len(text) > maximum or not compiled.fullmatch(text):
            raise refuse(f"{allowed}, at most {maximum} characters")
        return text

    return AfterValidator(check)


def _quantity(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    if isinstance(value, str) and re.fullmatch(QUANTITY, value):
        return value
    raise refuse("a quantity such as 2, 500m or 4Gi")


def _qualified(key: str) -> str:
    prefix, _, name = key.rpartition("/")
    if not re.fullmatch(QUALIFIED_NAME, key) or len(prefix) > 253 or len(name) > 63:
        raise refuse("a key like app or example.com/app")
    return key


def _not_ours(key: str) -> str:
    if key.startswith(OWN_DOMAIN):
        raise refuse(f"a key outside {OWN_DOMAIN}, which Corral sets itself")
    return key


def _unique_names(items: NamedItems) -> NamedItems:
    names = [item["name"] for item in items]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise refuse(f"each name once ({', '.join(twice)} is there more often)")
    return items


def _one_value(variable: EnvVar) -> EnvVar:
    if "value" in variable and "valueFrom" in variable:
        raise refuse("either value or valueFrom, not both")
    return variable


Subdomain = Annotated[str, pattern(DNS_SUBDOMAIN, "lower-case letters, digits, '-' and '.'")]
LabelValue = Annotated[str, pattern(f"({LABEL_NAME})?", "letters, digits, '-', '_' and '.'", maximum=63)]
ResourceName = Annotated[str, pattern(QUALIFIED_NAME, "a resource name such as nvidia.com/gpu")]
Quantity = Annotated[str | int, BeforeValidator(_quantity)]
Key = Annotated[str, AfterValidator(_qualified)]
UserKey = Annotated[Key, AfterValidator(_not_ours)]


class Resources(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]  # pydantic's documented way
    limits: Annotated[dict[Key, Quantity], Field(max_length=32)]
    requests: Annotated[dict[Key, Quantity], Field(max_length=32)]


class Toleration(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]  # pydantic's documented way
    key: str
    operator: Literal["Exists", "Equal"]
    value: str
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
    tolerationSeconds: Annotated[int, Field(ge=-(2**63), lt=2**63)]


class EnvVar(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]  # pydantic's documented way
    name: Required[Annotated[str, pattern(ENV_NAME, "letters, digits, '_', '-' and '.'")]]
    value: str
    valueFrom: dict[str, object]


class SecretReference(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]  # pydantic's documented way
    name: Subdomain


class Pod(BaseModel):
    """Overrides for the runner pod; what is not given is the operator's."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, strict=True)

    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    resources: Resources = Field(default_factory=Resources)
    node_selector: dict[Key, LabelValue] = Field(default_factory=dict, max_length=64)
    tolerations: list[Toleration] = Field(default_factory=list)
    affinity: dict[str, object] | None = None
    env: Annotated[list[Annotated[EnvVar, AfterValidator(_one_value)]], AfterValidator(_unique_names)] = Field(
        default_factory=list
    )
    labels: dict[UserKey, LabelValue] = Field(default_factory=dict, max_length=64)
    annotations: dict[UserKey, str] = Field(default_factory=dict, max_length=64)
    image_pull_secrets: Annotated[list[SecretReference], AfterValidator(_unique_names)] = Field(default_factory=list)
    priority_class_name: Subdomain | None = None
