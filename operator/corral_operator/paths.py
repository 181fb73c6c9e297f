"""The API server's paths of the kinds that the operator reads and writes."""

from __future__ import annotations

from corral_core.model import GROUP, PLURAL, VERSION

_MODELS = f"/apis/{GROUP}/{VERSION}", PLURAL
_DEPLOYMENTS = "/apis/apps/v1", "deployments"
_SERVICES = "/api/v1", "services"
_PODS = "/api/v1", "pods"
_NODES = "/api/v1", "nodes"
_EVENTS = "/api/v1", "events"
_LEASES = "/apis/coordination.k8s.io/v1", "leases"


def models(namespace: str = "", name: str = "") -> str:
    return _path(*_MODELS, namespace, name)


def model_status(namespace: str, name: str) -> str:
    return _path(*_MODELS, namespace, name) + "/status"


def deployments(namespace: str = "", name: str = "") -> str:
    return _path(*_DEPLOYMENTS, namespace, name)


def services(namespace: str = "", name: str = "") -> str:
    return _path(*_SERVICES, namespace, name)


def nodes() -> str:
    return _path(*_NODES, "", "")


def pods(namespace: str = "", name: str = "") -> str:
    return _path(*_PODS, namespace, name)


def events(namespace: str) -> str:
    return _path(*_EVENTS, namespace, "")


def leases(namespace: str, name: str = "") -> str:
    return _path(*_LEASES, namespace, name)


def _path(api: str, plural: str, namespace: str, name: str) -> str:
    middle = f"/namespaces/{namespace}" if namespace else ""
    return f"{api}{middle}/{plural}" + (f"/{name}" if name else "")
