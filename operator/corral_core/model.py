"""The Model resource, ``models.corral.dev/v1alpha1``, as frozen values.

The CRD in ``crds/`` says the same to the API server; a test holds the two together. ``resource.parse_model`` makes
these values and turns what pydantic finds wrong into ``InvalidModel``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from corral_core.durations import keep_alive_from_request, parse_duration
from corral_core.errors import InvalidDuration, InvalidName, SourceError
from corral_core.names import GRAMMAR, canonical, parse_name
from corral_core.parameters import Parameters
from corral_core.pod import Pod as Pod
from corral_core.pod import ResourceName, Subdomain, pattern, refuse
from corral_core.source import parse_source

GROUP, VERSION, KIND, PLURAL = "corral.dev", "v1alpha1", "Model", "models"
API_VERSION = f"{GROUP}/{VERSION}"

MAX_NAME = 52
"""Longest metadata.name: eleven of 63 characters remain for what is derived from it (``model-<name>-pull``)."""

MAX_SYSTEM = MAX_TEMPLATE = 32_768
"""Characters of each: a runner is told its spec in one environment variable, and the kernel has a limit."""

MAX_LICENSE = 65_536
"""Characters; no runner is told it."""

_INT32 = 2_147_483_647
_LONGEST = 9_223_372_036
"""Seconds: the longest duration that Go, and so the API server, can hold."""
_WAIT = "a duration above zero such as 30s or 5m, or whole seconds"
_DURATION = "a duration such as 90s, 5m or 1h30m, whole seconds, or -1 for never unloading"


def _check_source(uri: str) -> str:
    try:
        parse_source(uri)
    except SourceError as error:
        raise refuse(str(error)) from error
    return uri


def _check_name(name: str) -> str:
    try:
        parse_name(name)
    except InvalidName as error:
        raise refuse(GRAMMAR) from error
    return name


def _check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    seen: dict[str, str] = {}
    for name in names:
        if canonical(name) in seen:
            raise refuse(f"each name once, but {name} means the same as {seen[canonical(name)]}")
        seen[canonical(name)] = name
    return names


def _check_keep_alive(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise refuse(_DURATION)
    if isinstance(value, int) and abs(value) > _LONGEST:
        raise refuse(f"{_DURATION} (at most {_LONGEST} seconds)")
    try:
        keep_alive_from_request(value)
    except InvalidDuration as error:
        raise refuse(f"{_DURATION} ({error})") from error
    return value


def _check_wait(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise refuse(_WAIT)
    try:
        seconds = parse_duration(value) if isinstance(value, str) else float(value)
    except InvalidDuration as error:
        raise refuse(f"{_WAIT} ({error})") from error
    if not 0 < seconds <= _LONGEST:
        raise refuse(f"{_WAIT} (at most {_LONGEST} seconds)")
    return value


def _auto_or_int(minimum: int, maximum: int) -> BeforeValidator:
    def check(value: object) -> object:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if value != "auto" and not (is_number and minimum <= value <= maximum):  # type: ignore[operator]  # is_number
            raise refuse(f"auto or a whole number from {minimum} to {maximum}")
        return value

    return BeforeValidator(check)


SourceURI = Annotated[str, AfterValidator(_check_source), Field(max_length=2048)]
Name = Annotated[str, AfterValidator(_check_name)]
Names = Annotated[tuple[Name, ...], Field(strict=False, max_length=32), AfterValidator(_check_names)]
KeepAlive = Annotated[str | int, BeforeValidator(_check_keep_alive)]
Wait = Annotated[str | int, BeforeValidator(_check_wait)]
ContextLength = Annotated[int | Literal["auto"], _auto_or_int(4, 16_777_216)]
Parallel = Annotated[int | Literal["auto"], _auto_or_int(1, 256)]
Digest = Annotated[str, pattern(r"[0-9a-f]{64}", "the 64 lower-case hex digits of a SHA-256", maximum=64)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, strict=True)


class GPU(_Frozen):
    count: int = Field(default=0, ge=0, le=256)
    resource: ResourceName = "nvidia.com/gpu"


class Adapter(_Frozen):
    """A LoRA adapter over the weights, which clients ask for by ``name``; ``scale`` is how much of it is applied."""

    name: Name
    source: SourceURI
    sha256: Digest | None = None
    scale: float = Field(default=1.0, ge=-100, le=100, allow_inf_nan=False)


class Queue(_Frozen):
    """Bounds on the requests that wait for one model, which the gateways hold to; None is none."""

    max_pending: int | None = Field(default=None, ge=1, le=_INT32)
    max_wait: Wait | None = None

    @property
    def wait_seconds(self) -> float | None:
        """``max_wait`` in seconds."""
        value = self.max_wait
        return parse_duration(value) if isinstance(value, str) else value


Adapters = Annotated[tuple[Adapter, ...], Field(strict=False, max_length=16)]


class ModelSpec(_Frozen):
    """The wish of the person who wrote the Model; every default is the CRD's."""

    source: SourceURI
    sha256: Digest | None = None
    names: Names = ()
    adapters: Adapters = ()
    parameters: Parameters = Field(default_factory=Parameters)
    system: Annotated[str, Field(max_length=MAX_SYSTEM)] | None = None
    template: Annotated[str, Field(min_length=1, max_length=MAX_TEMPLATE)] | None = None
    license: Annotated[str, Field(min_length=1, max_length=MAX_LICENSE)] | None = None
    context_length: ContextLength = "auto"
    parallel: Parallel = "auto"
    embeddings: bool = False
    keep_alive: KeepAlive | None = None
    keep_alive_min: KeepAlive | None = None
    keep_alive_max: KeepAlive | None = None
    min_replicas: int = Field(default=0, ge=0)
    max_replicas: int = Field(default=1, ge=1, le=1)
    replicas: int | None = Field(default=None, ge=0)
    queue: Queue = Queue()
    gpu: GPU = GPU()
    runtime_class_name: Subdomain | None = None
    pod: Pod = Pod()
    suspend: bool = False

    @model_validator(mode="after")
    def _replicas_fit(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise _at("minReplicas", self.min_replicas, f"at most maxReplicas ({self.max_replicas})")
        if self.replicas is not None and self.replicas > self.max_replicas:
            raise _at("replicas", self.replicas, f"at most maxReplicas ({self.max_replicas})")
        return self

    @model_validator(mode="after")
    def _adapters_fit(self) -> Self:
        names = {canonical(name) for name in self.names}
        own = parse_source(self.source)
        for index, adapter in enumerate(self.adapters):
            if canonical(adapter.name) in names:
                raise _at(f"adapters[{index}].name", adapter.name, "a name that nothing else of the Model has")
            names.add(canonical(adapter.name))
            source = parse_source(adapter.source)
            if source.scheme == "pvc" and (own.scheme, own.root) != ("pvc", source.root):
                raise _at(f"adapters[{index}].source", adapter.source, "the claim of the Model's own source")
        return self

    @model_validator(mode="after")
    def _keep_alive_bounds_fit(self) -> Self:
        low, high = keep_alive_from_request(self.keep_alive_min), keep_alive_from_request(self.keep_alive_max)
        if low is not None and high is not None and low > high:
            raise _at("keepAliveMin", self.keep_alive_min, f"at most keepAliveMax ({self.keep_alive_max})")
        return self


def _at(field: str, value: object, allowed: str) -> Exception:
    """A refusal by a check over several fields, that names the one to change."""
    return refuse(allowed, field=field, value=value)


@dataclass(frozen=True, slots=True)
class Model:
    """One Model object. ``created`` is Unix seconds; ``key`` is ``namespace/name``."""

    name: str
    namespace: str
    created: float
    generation: int
    uid: str
    spec: ModelSpec
    key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.namespace}/{self.name}")  # gateways read it for every request
