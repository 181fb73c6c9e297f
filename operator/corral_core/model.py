"""The Model resource, ``models.corral.dev/v1alpha1``, as frozen values.

The CRD in ``crds/`` says the same to the API server; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP, VERSION, KIND, PLURAL = "corral.dev", "v1alpha1", "Model", "models"
API_VERSION = f"{GROUP}/{VERSION}"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, strict=True)


class GPU(_Frozen):
    count: int = Field(default=0, ge=0)
    resource: str = "nvidia.com/gpu"


class Pod(_Frozen):
    """Overrides for the runner pod, in the shapes of the Kubernetes API."""

    image: str | None = None
    resources: dict[str, dict[str, str | int | float]] = Field(default_factory=dict)
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[dict[str, object]] = Field(default_factory=list)
    affinity: dict[str, object] | None = None
    env: list[dict[str, object]] = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    image_pull_secrets: list[dict[str, str]] = Field(default_factory=list)
    priority_class_name: str | None = None


class ModelSpec(_Frozen):
    source: str
    sha256: str | None = None
    names: tuple[str, ...] = ()
    parameters: dict[str, object] = Field(default_factory=dict)
    system: str | None = None
    template: str | None = None
    license: str | None = None
    context_length: int | Literal["auto"] = "auto"
    parallel: int | Literal["auto"] = "auto"
    keep_alive: str | int | float | None = None
    keep_alive_min: str | int | float | None = None
    keep_alive_max: str | int | float | None = None
    min_replicas: int = 0
    max_replicas: int = 1
    replicas: int | None = None
    gpu: GPU = GPU()
    runtime_class_name: str | None = None
    pod: Pod = Pod()
    suspend: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """One Model object. ``created`` is Unix seconds; ``key`` is ``namespace/name``."""

    name: str
    namespace: str
    created: float
    generation: int
    uid: str
    spec: ModelSpec

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"
