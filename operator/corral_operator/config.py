"""Settings of the operator, read once from the environment: Ollama's names where it has one, ``CORRAL_*`` otherwise."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from corral_core.base.durations import parse_keep_alive_setting
from corral_core.base.errors import InvalidQuantity, InvalidSetting
from corral_core.base.json_fields import JsonObject
from corral_core.base.quantities import parse_quantity
from corral_core.base.settings import (
    bool_setting,
    choice_setting,
    duration_setting,
    int_setting,
    list_setting,
    str_setting,
    timeout_setting,
)
from corral_core.model.accelerator import GPUPodSettings, Vendor, accelerators_for, vendor_of
from corral_core.model.model import ModelSpec
from corral_core.model.pod import NO_HTTP_PROXY, Key, LabelValue, TolerationSpec
from corral_core.model.pulling import check_proxy
from corral_core.planning.node_pools import NO_POOLS, Pools
from corral_core.planning.snapshot import Policy
from corral_core.sources.hosts import HOST_PATTERN
from corral_core.weights.load_config import load_request
from corral_operator.pool_settings import pools_from

LOG_LEVELS = ("debug", "info", "warning", "error")

_PEER_FIELDS = {"podSelector", "namespaceSelector", "ipBlock"}
"""Fields of a NetworkPolicyPeer."""

POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""File with the namespace of the pod, which the kubelet mounts beside the token."""

DEFAULT_LEASE_NAMESPACE = "corral"
"""Namespace of the Lease outside of a pod; with the Lease's default name it is the Lease of the documented installation
by the chart."""

FIELD_MANAGER = "corral-operator"
"""Field manager of all writes of the operator."""

RUNNER_SETTINGS = (
    "OLLAMA_KEEP_ALIVE",
    "OLLAMA_CONTEXT_LENGTH",
    "OLLAMA_NUM_PARALLEL",
    "CORRAL_SPECULATION",
    "OLLAMA_KV_CACHE_TYPE",
    "OLLAMA_FLASH_ATTENTION",
    "OLLAMA_GPU_OVERHEAD",
    "CORRAL_THREADS",
    "CORRAL_LOCK_MEMORY",
    "CORRAL_WARM_UP",
    "CORRAL_CLIENT_TEMPLATES",
    "CORRAL_MAX_IMAGES",
    "CORRAL_MAX_IMAGE_BYTES",
    "CORRAL_MAX_IMAGE_PIXELS",
)
"""Settings of the installation that every runner inherits."""

DEFAULT_IMAGES: Mapping[str, str] = {"cuda": "corral/runner-cuda:dev", "vulkan": "corral/runner-vulkan:dev"}
"""Images by accelerator, with the names that ``scripts/images.py`` gives them; AMD's GPUs use Vulkan by default."""


@dataclass(frozen=True, slots=True)
class HostCredentials:
    """A Secret of the Model's namespace for the sources of a host (``sources.hosts``)."""

    host: str
    secret: str


@dataclass(frozen=True, slots=True)
class PullerDefaults:
    """Network of the pods that reach sources, for Models that do not set it.

    The Secrets and the ConfigMap are those of the Model's namespace; ``https_proxy_secret`` is name and key. ``env``
    are further variables in the form of the Kubernetes API. ``clients`` may read the progress, as in
    ``spec.ingress[].from`` of a NetworkPolicy; without any, there are no NetworkPolicies. ``destinations`` may be
    reached besides name servers and all addresses but the link-local ones, as in ``spec.egress[].to``. The first of
    ``credentials`` that matches is for a source. At most ``limit`` pods pull at once.
    """

    https_proxy: str = ""
    https_proxy_secret: tuple[str, str] | None = None
    no_proxy: str = ""
    ca_config_map: str = ""
    ca_secret: str = ""
    ca_key: str = "ca.crt"
    env: tuple[JsonObject, ...] = ()
    clients: tuple[JsonObject, ...] = ()
    destinations: tuple[JsonObject, ...] = ()
    credentials: tuple[HostCredentials, ...] = ()
    limit: int = 4


@dataclass(frozen=True, slots=True)
class RunnerDefaults:
    """Properties of runner pods that their Model does not set.

    ``drain_timeout`` and ``unreachable_node_timeout``, after which the pod of an unreachable node is replaced, are
    seconds. ``env`` are further variables of the container in the form of the Kubernetes API. ``cpu_request`` is a
    quantity. Loading may take ``load_timeout`` seconds, or longer for weights that take longer to read at ``load_rate``
    bytes per second. ``network_clients`` are the peers that the runners' NetworkPolicies admit; without any, there are
    no NetworkPolicies. ``puller`` are the settings of the pods that pull the weights.

    ``image`` is for CPUs, ``images`` are by accelerator (``model.accelerator``); without one its GPUs are not used.
    ``pull_secrets`` are Secrets of the Model's namespace for the registry of the images. ``node_selector`` and
    ``tolerations``, in the form of the Kubernetes API, are for all pods of Models. ``runtime_class`` is the
    RuntimeClass of runners with NVIDIA GPUs: None lets the cluster decide, ``""`` is none. ``gpu_pods`` are settings by
    the vendor of the GPUs. ``spread``: all GPUs of a node are preferred to one. ``gpu_overhead`` are bytes that
    are left free on each GPU.
    """

    image: str = "corral/runner:dev"
    images: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULT_IMAGES))
    pull_secrets: tuple[str, ...] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[TolerationSpec, ...] = ()
    runtime_class: str | None = None
    gpu_pods: Mapping[Vendor, GPUPodSettings] = field(default_factory=dict)
    spread: bool = False
    gpu_overhead: int = 0
    drain_timeout: float = 600.0
    unreachable_node_timeout: float = 10.0
    settings: Mapping[str, str] = field(default_factory=dict)
    priority_class: str = ""
    env: tuple[JsonObject, ...] = ()
    cpu_request: str = "250m"
    load_timeout: float = 300.0
    network_clients: tuple[JsonObject, ...] = ()
    puller: PullerDefaults = field(default_factory=PullerDefaults)

    def image_for(self, resource: str) -> str | None:
        """Return the image for the GPUs of an extended resource; None if there is none, so that they are not used."""
        return next((self.images[each] for each in accelerators_for(resource) if self.images.get(each)), None)

    def gpu_pod(self, resource: str) -> GPUPodSettings:
        """Return the settings of runner pods with the GPUs of an extended resource."""
        vendor = vendor_of(resource)
        return (self.gpu_pods.get(vendor) if vendor is not None else None) or GPUPodSettings()


@dataclass(frozen=True, slots=True)
class LeaseConfig:
    """The Lease for leader election. Another replica may acquire it ``duration`` seconds after its last renewal."""

    namespace: str = DEFAULT_LEASE_NAMESPACE
    name: str = "corral-operator"
    identity: str = "operator"
    duration: float = 15.0

    @property
    def installation(self) -> str:
        """Name of the installation, whose operator replicas share the Lease."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class OperatorConfig:
    """``namespaces`` empty means all of them; ``resync_period`` is in seconds.

    ``shared_namespaces`` are those whose Models have plain names for every client, empty for all.

    ``pools`` are the node pools that the installation declares.

    ``http_port`` 0 lets the system choose a port. At most ``max_inspectors`` inspector pods run at once.
    """

    policy: Policy = field(default_factory=Policy)
    runner: RunnerDefaults = field(default_factory=RunnerDefaults)
    lease: LeaseConfig = field(default_factory=LeaseConfig)
    namespaces: tuple[str, ...] = ()
    shared_namespaces: tuple[str, ...] = ()
    kubeconfig: str | None = None
    resync_period: float = 60.0
    workers: int = 16
    log_level: str = "INFO"
    http_port: int = 0
    max_inspectors: int = 4
    pools: Pools = NO_POOLS


def from_environment(environ: Mapping[str, str]) -> OperatorConfig:
    """Raises InvalidSetting, which names the variable and the allowed values."""
    return OperatorConfig(
        policy=_policy(environ),
        runner=_runner(environ),
        lease=_lease(environ),
        namespaces=list_setting(environ, "CORRAL_WATCH_NAMESPACES"),
        shared_namespaces=list_setting(environ, "CORRAL_SHARED_NAMESPACES"),
        kubeconfig=str_setting(environ, "KUBECONFIG") or None,
        resync_period=duration_setting(environ, "CORRAL_RESYNC_PERIOD", default=60.0, minimum=1.0),
        workers=int_setting(environ, "CORRAL_WORKERS", default=16, minimum=1, maximum=64),
        max_inspectors=int_setting(environ, "CORRAL_INSPECTORS", default=4, minimum=1, maximum=64),
        http_port=int_setting(environ, "CORRAL_HTTP_PORT", default=0, minimum=0, maximum=65535),
        log_level=choice_setting(environ, "CORRAL_LOG_LEVEL", default="info", choices=LOG_LEVELS).upper(),
        pools=pools_from(environ),
    )


def _policy(environ: Mapping[str, str]) -> Policy:
    max_loaded = int_setting(environ, "OLLAMA_MAX_LOADED_MODELS", default=0, minimum=0)
    return Policy(
        keep_alive=parse_keep_alive_setting(environ.get("OLLAMA_KEEP_ALIVE", "")),
        max_loaded=max_loaded or None,
        load_timeout=timeout_setting(environ, "OLLAMA_LOAD_TIMEOUT", default=300.0),
        eviction_timeout=duration_setting(environ, "CORRAL_EVICTION_TIMEOUT", default=300.0, minimum=1.0),
    )


def _runner(environ: Mapping[str, str]) -> RunnerDefaults:
    return RunnerDefaults(
        image=str_setting(environ, "CORRAL_RUNNER_IMAGE", default="corral/runner:dev"),
        images=_images(environ),
        pull_secrets=list_setting(environ, "CORRAL_RUNNER_PULL_SECRETS"),
        node_selector=_checked(environ, "CORRAL_RUNNER_NODE_SELECTOR", _NODE_SELECTOR, default="{}"),
        tolerations=_checked(environ, "CORRAL_RUNNER_TOLERATIONS", _TOLERATIONS, default="[]"),
        runtime_class=_runtime_class(environ),
        gpu_pods=_checked(environ, "CORRAL_RUNNER_ACCELERATORS", _GPU_PODS, default="{}"),
        spread=bool_setting(environ, "OLLAMA_SCHED_SPREAD", default=False),
        gpu_overhead=int_setting(environ, "OLLAMA_GPU_OVERHEAD", default=0, minimum=0),
        drain_timeout=duration_setting(environ, "CORRAL_DRAIN_TIMEOUT", default=600.0),
        unreachable_node_timeout=duration_setting(environ, "CORRAL_LOST_NODE_TIMEOUT", default=10.0),
        settings=_runner_settings(environ),
        priority_class=str_setting(environ, "CORRAL_RUNNER_PRIORITY_CLASS"),
        env=_variables(environ, "CORRAL_RUNNER_ENV"),
        cpu_request=_quantity(environ, "CORRAL_RUNNER_CPU", default="250m"),
        load_timeout=timeout_setting(environ, "OLLAMA_LOAD_TIMEOUT", default=300.0),
        network_clients=_peers(environ, "CORRAL_RUNNER_CLIENTS"),
        puller=_puller(environ),
    )


_IMAGE_SETTINGS: Mapping[str, str] = {
    "cuda": "CORRAL_RUNNER_IMAGE_CUDA",
    "vulkan": "CORRAL_RUNNER_IMAGE_VULKAN",
    "rocm": "CORRAL_RUNNER_IMAGE_ROCM",
}


def _images(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the images by accelerator, without those that are switched off by ``none``."""
    named = {
        each: str_setting(environ, setting, default=DEFAULT_IMAGES.get(each, ""))
        for each, setting in _IMAGE_SETTINGS.items()
    }
    return {each: image for each, image in named.items() if image not in ("", "none")}


def _runtime_class(environ: Mapping[str, str]) -> str | None:
    value = str_setting(environ, "CORRAL_RUNNER_RUNTIME_CLASS", default="auto")
    return {"auto": None, "none": ""}.get(value, value)


_GPU_PODS: TypeAdapter[Mapping[Vendor, GPUPodSettings]] = TypeAdapter(dict[Vendor, GPUPodSettings])
_NODE_SELECTOR: TypeAdapter[Mapping[Key, LabelValue]] = TypeAdapter(dict[Key, LabelValue])
_TOLERATIONS: TypeAdapter[tuple[TolerationSpec, ...]] = TypeAdapter(tuple[TolerationSpec, ...])

_Value = TypeVar("_Value")


def _checked(environ: Mapping[str, str], setting: str, adapter: TypeAdapter[_Value], *, default: str) -> _Value:
    """Parse the JSON of a setting; ``default`` is JSON as well. Raises InvalidSetting, which names the wrong field."""
    try:
        return adapter.validate_json(environ.get(setting) or default)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the value"
        raise InvalidSetting(f"{setting} is not allowed: {place}: {first['msg']}") from None


def _puller(environ: Mapping[str, str]) -> PullerDefaults:
    secret = str_setting(environ, "CORRAL_PULLER_HTTPS_PROXY_SECRET")
    name, _, key = secret.partition("/")
    return PullerDefaults(
        https_proxy=_proxy(environ, "CORRAL_PULLER_HTTPS_PROXY"),
        https_proxy_secret=(name, key or "httpsProxy") if secret else None,
        no_proxy=str_setting(environ, "CORRAL_PULLER_NO_PROXY"),
        ca_config_map=str_setting(environ, "CORRAL_PULLER_CA_CONFIG_MAP"),
        ca_secret=str_setting(environ, "CORRAL_PULLER_CA_SECRET"),
        ca_key=str_setting(environ, "CORRAL_PULLER_CA_KEY", default="ca.crt"),
        env=_variables(environ, "CORRAL_PULLER_ENV"),
        clients=_peers(environ, "CORRAL_PULLER_CLIENTS"),
        destinations=_peers(environ, "CORRAL_PULLER_DESTINATIONS"),
        credentials=_credentials(environ, "CORRAL_PULLER_CREDENTIALS"),
        limit=int_setting(environ, "CORRAL_PULLERS", default=4, minimum=1, maximum=1024),
    )


def _proxy(environ: Mapping[str, str], name: str) -> str:
    """Return the URL of a proxy. A password would be in the spec of every puller pod, so it belongs in a Secret."""
    value = str_setting(environ, name)
    try:
        return check_proxy(value) if value else ""
    except PydanticCustomError as error:
        raise InvalidSetting(f"{name} is not allowed: it must be {error.message()}") from None


def _runner_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the inherited settings; raise InvalidSetting for a value that every runner would reject."""
    settings = {name: environ[name] for name in RUNNER_SETTINGS if environ.get(name)}
    load_request(ModelSpec(source="file:///any.gguf"), settings)
    return settings


def _quantity(environ: Mapping[str, str], name: str, *, default: str) -> str:
    value = str_setting(environ, name, default=default)
    try:
        parse_quantity(value)
    except InvalidQuantity as error:
        raise InvalidSetting(f"{name}={value!r} is not allowed: {error}") from error
    return value


def _variables(environ: Mapping[str, str], setting: str) -> tuple[JsonObject, ...]:
    value = environ.get(setting, "")
    try:
        found = json.loads(value or "[]")
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(item, dict) and item.get("name") for item in found):
        raise InvalidSetting(f'{setting}={value!r} is not allowed: it must be like [{{"name": "A", "value": "b"}}]')
    if any(str(item["name"]).upper() == "HTTP_PROXY" for item in found):
        raise InvalidSetting(f"{setting}: it must have {NO_HTTP_PROXY}")
    return tuple(found)


def _credentials(environ: Mapping[str, str], setting: str) -> tuple[HostCredentials, ...]:
    value = environ.get(setting, "")
    try:
        found = json.loads(value or "[]")
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(_is_credentials(item) for item in found):
        raise InvalidSetting(
            f"{setting}={value!r} is not allowed: it must be a list like "
            '[{"host": "huggingface.co", "secretName": "hub"}]; a host may begin with *. or have a port'
        )
    return tuple(HostCredentials(item["host"], item["secretName"]) for item in found)


def _is_credentials(item: object) -> bool:
    if not isinstance(item, dict) or item.keys() != {"host", "secretName"}:
        return False
    host, secret = item["host"], item["secretName"]
    return isinstance(host, str) and isinstance(secret, str) and bool(secret) and bool(HOST_PATTERN.fullmatch(host))


def _peers(environ: Mapping[str, str], setting: str) -> tuple[JsonObject, ...]:
    """Parse the peers of a NetworkPolicy. An empty list or peer is an error: Kubernetes would admit every client."""
    value = environ.get(setting, "")
    if not value:
        return ()
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    if not isinstance(found, list) or not found or not all(_is_peer(item) for item in found):
        raise InvalidSetting(
            f"{setting}={value!r} is not allowed: it must be a list like spec.ingress[].from of a "
            'NetworkPolicy, for example [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]'
        )
    return tuple(found)


def _is_peer(item: object) -> bool:
    return isinstance(item, dict) and bool(item) and item.keys() <= _PEER_FIELDS


def _lease_namespace(environ: Mapping[str, str]) -> str:
    """Return the namespace of this pod, else the one that the documentation installs the chart in.

    An operator that is started beside an installation by the chart so becomes its standby.
    """
    if not environ.get("KUBECONFIG") and POD_NAMESPACE.exists():
        return POD_NAMESPACE.read_text().strip()
    return DEFAULT_LEASE_NAMESPACE


def _lease(environ: Mapping[str, str]) -> LeaseConfig:
    identity = str_setting(environ, "CORRAL_OPERATOR_ID", default=f"{socket.gethostname()}-{os.getpid()}")
    return LeaseConfig(
        namespace=str_setting(environ, "CORRAL_LEASE_NAMESPACE", default=_lease_namespace(environ)),
        name=str_setting(environ, "CORRAL_LEASE_NAME", default="corral-operator"),
        identity=identity,
        duration=duration_setting(environ, "CORRAL_LEASE_DURATION", default=15.0, minimum=3.0),
    )
