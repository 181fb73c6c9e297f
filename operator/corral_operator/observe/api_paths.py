"""URL paths of the resources that the operator reads and writes."""

from __future__ import annotations

from corral_core.model.model import GROUP, PLURAL, VERSION

_MODELS = f"/apis/{GROUP}/{VERSION}", PLURAL
_DEPLOYMENTS = "/apis/apps/v1", "deployments"
_SERVICES = "/api/v1", "services"
_NETWORK_POLICIES = "/apis/networking.k8s.io/v1", "networkpolicies"
_PODS = "/api/v1", "pods"
_CLAIMS = "/api/v1", "persistentvolumeclaims"
_SERVICE_CIDRS = "/apis/networking.k8s.io/v1", "servicecidrs"
_RUNTIME_CLASSES = "/apis/node.k8s.io/v1", "runtimeclasses"
_NODES = "/api/v1", "nodes"
_RESOURCE_SLICES = "/apis/resource.k8s.io/v1", "resourceslices"
_RESOURCE_CLAIMS = "/apis/resource.k8s.io/v1", "resourceclaims"
_CLAIM_TEMPLATES = "/apis/resource.k8s.io/v1", "resourceclaimtemplates"
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


def network_policies(namespace: str = "", name: str = "") -> str:
    return _path(*_NETWORK_POLICIES, namespace, name)


def nodes() -> str:
    return _path(*_NODES, "", "")


def claims(namespace: str = "", name: str = "") -> str:
    return _path(*_CLAIMS, namespace, name)


def service_cidrs() -> str:
    return _path(*_SERVICE_CIDRS, "", "")


def runtime_classes() -> str:
    return _path(*_RUNTIME_CLASSES, "", "")


def pods(namespace: str = "", name: str = "") -> str:
    return _path(*_PODS, namespace, name)


def resource_slices() -> str:
    return _path(*_RESOURCE_SLICES, "", "")


def resource_claims() -> str:
    return _path(*_RESOURCE_CLAIMS, "", "")


def claim_templates(namespace: str, name: str = "") -> str:
    return _path(*_CLAIM_TEMPLATES, namespace, name)


def events(namespace: str, name: str = "") -> str:
    return _path(*_EVENTS, namespace, name)


def leases(namespace: str, name: str = "") -> str:
    return _path(*_LEASES, namespace, name)


def _path(api: str, plural: str, namespace: str, name: str) -> str:
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{api}{scope}/{plural}" + (f"/{name}" if name else "")
