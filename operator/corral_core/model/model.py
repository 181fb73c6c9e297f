"""Model resource, ``models.corral.dev/v1alpha1``, as frozen pydantic models.

- The CRD in ``crds/`` has the same schema; a test compares the two.
- ``resource.parse_model`` builds these values and converts pydantic's errors to ``InvalidModel``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from corral_core.base.durations import keep_alive_from_json, parse_duration
from corral_core.base.errors import InvalidDuration, InvalidName, SourceError
from corral_core.base.names import GRAMMAR, canonical_name, parse_name
from corral_core.model.parameters import Parameters
from corral_core.model.pod import (
    LABEL_NAME,
    Quantity,
    ResourceName,
    RuntimeClass,
    SecretReference,
    pattern_validator,
    validation_error,
)
from corral_core.model.pod import PodOverrides as PodOverrides
from corral_core.model.pulling import IMAGE, CacheSpec, ProxySpec
from corral_core.sources.forms import ClaimSource, OciSource
from corral_core.sources.uri import parse_source, shown_uri

GROUP, VERSION, KIND, PLURAL = "corral.dev", "v1alpha1", "Model", "models"
API_VERSION = f"{GROUP}/{VERSION}"

MAX_NAME = 52
"""Maximum length of metadata.name; 11 of 63 characters remain for derived names (``model-<name>-pull``)."""

MAX_SYSTEM = MAX_TEMPLATE = 32_768
"""Characters; the runner gets its spec in one environment variable, whose size the kernel limits."""

MAX_MESSAGE = 4096
"""Characters of one example message."""

MAX_LICENSE = 65_536
"""Characters; the runner does not get the license."""

MIN_POLL_INTERVAL = 30
"""Seconds; a registry answers at least one request for each poll."""

POLL_INTERVAL = 3600.0
"""Seconds between two polls of a source, by default."""

_INT32 = 2_147_483_647
_LONGEST = 9_223_372_036
"""Seconds; the longest duration in Go and so in the API server."""
_WAIT = "a duration above zero such as 30s or 5m, or whole seconds"
_DURATION = "a duration such as 90s, 5m or 1h30m, whole seconds, or -1 for never unloading"


def _check_source(uri: str) -> str:
    try:
        parse_source(uri)
    except SourceError as error:
        raise validation_error(str(error), shown=shown_uri(uri)) from error
    return uri


def _check_name(name: str) -> str:
    try:
        parse_name(name)
    except InvalidName as error:
        raise validation_error(GRAMMAR) from error
    return name


def _check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    seen: dict[str, str] = {}
    for name in names:
        if canonical_name(name) in seen:
            raise validation_error(f"unique names, but {name} is equivalent to {seen[canonical_name(name)]}")
        seen[canonical_name(name)] = name
    return names


def _check_keep_alive(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise validation_error(_DURATION)
    if isinstance(value, int) and abs(value) > _LONGEST:
        raise validation_error(f"{_DURATION} (at most {_LONGEST} seconds)")
    try:
        keep_alive_from_json(value)
    except InvalidDuration as error:
        raise validation_error(f"{_DURATION} ({error})") from error
    return value


def _check_wait(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise validation_error(_WAIT)
    try:
        seconds = parse_duration(value) if isinstance(value, str) else float(value)
    except InvalidDuration as error:
        raise validation_error(f"{_WAIT} ({error})") from error
    if not 0 < seconds <= _LONGEST:
        raise validation_error(f"{_WAIT} (at most {_LONGEST} seconds)")
    return value


def _check_poll_interval(value: object) -> object:
    _check_wait(value)
    if (parse_duration(value) if isinstance(value, str) else float(value)) < MIN_POLL_INTERVAL:  # type: ignore[arg-type]  # _check_wait
        raise validation_error(f"{_WAIT}, at least {MIN_POLL_INTERVAL} seconds")
    return value


def _auto_or_int(minimum: int, maximum: int) -> BeforeValidator:
    def check(value: object) -> object:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if value != "auto" and not (is_number and minimum <= value <= maximum):  # type: ignore[operator]  # is_number
            raise validation_error(f"auto or a whole number from {minimum} to {maximum}")
        return value

    return BeforeValidator(check)


SourceURI = Annotated[str, AfterValidator(_check_source), Field(max_length=2048)]
ClientName = Annotated[str, AfterValidator(_check_name)]
ClientNames = Annotated[tuple[ClientName, ...], Field(strict=False, max_length=32), AfterValidator(_check_names)]
KeepAlive = Annotated[str | int, BeforeValidator(_check_keep_alive)]
PollInterval = Annotated[str | int, BeforeValidator(_check_poll_interval)]
WaitDuration = Annotated[str | int, BeforeValidator(_check_wait)]
ContextLength = Annotated[int | Literal["auto"], _auto_or_int(4, 16_777_216)]
Parallel = Annotated[int | Literal["auto"], _auto_or_int(1, 256)]
GPUCount = Annotated[int | Literal["auto"], _auto_or_int(0, 256)]
Product = Annotated[str, pattern_validator(LABEL_NAME, "a label value such as NVIDIA-H100-80GB-HBM3", maximum=63)]
ComputeCapability = Annotated[str, pattern_validator(r"[0-9]{1,3}[.][0-9]{1,3}", "a version such as 8.0", maximum=7)]
Digest = Annotated[str, pattern_validator(r"[0-9a-f]{64}", "the 64 lower-case hex digits of a SHA-256", maximum=64)]


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, strict=True)


TensorShare = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
TensorSplit = Annotated[tuple[TensorShare, ...], Field(strict=False, max_length=16)]


class GPUSpec(_FrozenModel):
    """GPUs of one runner. ``resource`` None means any that the nodes offer, ``memory`` is the minimum of each GPU.

    ``compute_capability`` is the minimum, ``product`` the value of the nodes' product label. ``split_mode`` and the
    fields after it are llama.cpp's.
    """

    count: GPUCount = "auto"
    resource: ResourceName | None = None
    memory: Quantity | None = None
    product: Product | None = None
    compute_capability: ComputeCapability | None = None
    offload: Literal["full", "auto", "none"] = "auto"
    split_mode: Literal["layer", "row", "none"] = "layer"
    main_gpu: Annotated[int, Field(alias="mainGPU", ge=0, le=255)] = 0
    tensor_split: TensorSplit | None = None
    expert_layers_on_cpu: Annotated[int, Field(alias="expertLayersOnCPU", ge=0, le=65_536)] = 0
    sharing: Literal["exclusive", "shared"] = "exclusive"

    @property
    def on_cpu(self) -> bool:
        """Whether the Model asks for no GPU."""
        return self.count == 0 or self.offload == "none"

    @property
    def fixed_count(self) -> int:
        """The number of GPUs that the Model itself sets, 0 with auto."""
        return self.count if isinstance(self.count, int) else 0

    @property
    def known_resource(self) -> str:
        """The resource that the Model names, else NVIDIA's."""
        return self.resource or "nvidia.com/gpu"

    @model_validator(mode="after")
    def _count_fits_the_offload(self) -> Self:
        if self.offload == "none" and self.count not in (0, "auto"):
            raise _field_error("count", self.count, "0 or auto if gpu.offload is none")
        if self.offload == "full" and self.count == 0:
            raise _field_error("count", self.count, "auto or at least 1 if gpu.offload is full")
        return self


class AdapterSpec(_FrozenModel):
    """LoRA adapter that clients request by ``name``; ``scale`` is its weight."""

    name: ClientName
    source: SourceURI
    sha256: Digest | None = None
    scale: float = Field(default=1.0, ge=-100, le=100, allow_inf_nan=False)


class MessageSpec(_FrozenModel):
    """Message of an example conversation, as a Modelfile's MESSAGE."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(max_length=MAX_MESSAGE)]


class QueueSpec(_FrozenModel):
    """Limits of one model's queue, enforced by the gateways; None means no limit."""

    max_pending: int | None = Field(default=None, ge=1, le=_INT32)
    max_wait: WaitDuration | None = None

    @property
    def max_wait_seconds(self) -> float | None:
        """``max_wait`` in seconds."""
        return _seconds(self.max_wait)


class RequestLimitsSpec(_FrozenModel):
    """Limits of one request, sent to the runner by the gateways; None means the installation's."""

    max_output_tokens: int | None = Field(default=None, ge=1, le=_INT32)
    max_duration: WaitDuration | None = None

    @property
    def max_duration_seconds(self) -> float | None:
        """``max_duration`` in seconds."""
        return _seconds(self.max_duration)


def _seconds(value: str | int | None) -> float | None:
    return parse_duration(value) if isinstance(value, str) else value


AdapterSpecs = Annotated[tuple[AdapterSpec, ...], Field(strict=False, max_length=16)]
MessageSpecs = Annotated[tuple[MessageSpec, ...], Field(strict=False, max_length=64)]


class ModelSpec(_FrozenModel):
    """Spec of a Model; the defaults equal the CRD's."""

    source: SourceURI
    sha256: Digest | None = None
    source_secret_ref: SecretReference | None = None
    cache: CacheSpec = CacheSpec()
    prefetch: bool = True
    update_policy: Literal["Pinned", "OnRestart", "Poll"] = "Pinned"
    poll_interval: PollInterval | None = None
    proxy: ProxySpec = ProxySpec()
    names: ClientNames = ()
    adapters: AdapterSpecs = ()
    projector: SourceURI | None = None
    parameters: Parameters = Field(default_factory=Parameters)
    system: Annotated[str, Field(max_length=MAX_SYSTEM)] | None = None
    template: Annotated[str, Field(min_length=1, max_length=MAX_TEMPLATE)] | None = None
    messages: MessageSpecs = ()
    license: Annotated[str, Field(min_length=1, max_length=MAX_LICENSE)] | None = None
    context_length: ContextLength = "auto"
    context_policy: Literal["Fixed", "Grow"] = "Fixed"
    max_context_length: Annotated[int, Field(ge=4, le=16_777_216)] | None = None
    parallel: Parallel = "auto"
    embeddings: bool = False
    kv_cache_type: Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"] | None = None
    flash_attention: Literal["auto", "enabled", "disabled"] | None = None
    keep_alive: KeepAlive | None = None
    keep_alive_min: KeepAlive | None = None
    keep_alive_max: KeepAlive | None = None
    min_replicas: int = Field(default=0, ge=0)
    max_replicas: int = Field(default=1, ge=1, le=1)
    replicas: int | None = Field(default=None, ge=0)
    queue: QueueSpec = QueueSpec()
    request_limits: RequestLimitsSpec = RequestLimitsSpec()
    gpu: GPUSpec = GPUSpec()
    runtime_class_name: RuntimeClass | None = None
    pod: PodOverrides = PodOverrides()
    suspend: bool = False

    @property
    def poll_seconds(self) -> float | None:
        """Seconds after which the source is resolved again, None if time alone does not cause it."""
        if self.update_policy != "Poll":
            return None
        return _seconds(self.poll_interval) or POLL_INTERVAL

    @model_validator(mode="after")
    def _replicas_fit(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise _field_error("minReplicas", self.min_replicas, f"at most maxReplicas ({self.max_replicas})")
        if self.replicas is not None and self.replicas > self.max_replicas:
            raise _field_error("replicas", self.replicas, f"at most maxReplicas ({self.max_replicas})")
        return self

    @model_validator(mode="after")
    def _attention_supports_the_kv_cache(self) -> Self:
        if self.flash_attention == "disabled" and (self.kv_cache_type or "").startswith("q"):
            raise _field_error("kvCacheType", self.kv_cache_type, "f32, f16 or bf16 if flashAttention is disabled")
        return self

    @model_validator(mode="after")
    def _cache_fits_the_source(self) -> Self:
        if self.cache.type == IMAGE and not isinstance(parse_source(self.source), OciSource):
            raise _field_error("cache.type", self.cache.type, "image requires an oci:// source")
        return self

    @model_validator(mode="after")
    def _adapters_fit(self) -> Self:
        names = {canonical_name(name) for name in self.names}
        own = parse_source(self.source)
        for index, adapter in enumerate(self.adapters):
            if canonical_name(adapter.name) in names:
                raise _field_error(f"adapters[{index}].name", adapter.name, "a name that is unique within the Model")
            names.add(canonical_name(adapter.name))
            source = parse_source(adapter.source)
            if isinstance(source, ClaimSource) and not (isinstance(own, ClaimSource) and own.claim == source.claim):
                raise _field_error(
                    f"adapters[{index}].source", adapter.source, "a path on the claim of the Model's source"
                )
        return self

    @model_validator(mode="after")
    def _projector_is_on_the_claim(self) -> Self:
        own, projector = parse_source(self.source), parse_source(self.projector or self.source)
        if isinstance(projector, ClaimSource) and not (isinstance(own, ClaimSource) and own.claim == projector.claim):
            raise _field_error("projector", self.projector, "a path on the claim of the Model's source")
        return self

    @model_validator(mode="after")
    def _keep_alive_bounds_fit(self) -> Self:
        low, high = keep_alive_from_json(self.keep_alive_min), keep_alive_from_json(self.keep_alive_max)
        if low is not None and high is not None and low > high:
            raise _field_error("keepAliveMin", self.keep_alive_min, f"at most keepAliveMax ({self.keep_alive_max})")
        return self


def _field_error(field: str, value: object, allowed: str) -> Exception:
    """Build the error of a check over several fields for the field to change."""
    return validation_error(allowed, field=field, value=value)


@dataclass(frozen=True, slots=True)
class Model:
    """A Model object. ``created`` is in Unix seconds; ``key`` is ``namespace/name``."""

    name: str
    namespace: str
    created: float
    generation: int
    uid: str
    spec: ModelSpec
    key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.namespace}/{self.name}")  # stored: gateways read it per request
