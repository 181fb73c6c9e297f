"""Network of the containers that reach sources: proxy, exceptions, authorities and credentials.

- Only the containers of resolvers and pullers get these settings. The container of a runner has neither them nor the
  Secret, also if a puller ran in its pod before.
- A Model with its own proxy or authorities can read what its pods send, so they do not get the installation's
  credentials.
- The Secret that the installation names for a host is used if it is that of all remote sources of the Model: a pod has
  one Secret, and sends its token to the host of each source.
- A Model's ``spec.proxy`` replaces the installation's settings field by field.
- Addresses of the cluster are reached without the proxy: names by their suffix, and the ranges of its nodes, pods and
  Services (``cluster_ranges``). The ranges do not identify a pod's task, so a new node replaces no puller.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from corral_core.base.json_fields import JsonObject, get_str
from corral_core.model.model import Model
from corral_core.model.remote_sources import remote_sources
from corral_core.sources.forms import LocalSource
from corral_core.sources.hosts import matches_host, source_host
from corral_core.sources.uri import parse_source
from corral_operator.config import PullerDefaults

CLUSTER_NAMES = ("localhost", "127.0.0.0/8", "::1", ".svc", ".cluster.local")
"""What is never reached by the proxy, besides the ranges of the cluster."""

_CA_FOLDER, _SECRET_FOLDER = "/etc/corral/ca", "/etc/corral/source"
_CREDENTIALS = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|AUTHORIZATION|_KEY(_ID)?$")
"""Parts of the names of variables that hold credentials, such as HF_TOKEN or AWS_SECRET_ACCESS_KEY."""


def network_variables(model: Model, defaults: PullerDefaults, ranges: Sequence[str]) -> list[JsonObject]:
    """Return the variables of a container that reaches sources; ``ranges`` are those of the cluster."""
    proxy = model.spec.proxy
    no_proxy = defaults.no_proxy if proxy.no_proxy is None else proxy.no_proxy
    exceptions = [*CLUSTER_NAMES, *ranges, *(part.strip() for part in no_proxy.split(",") if part.strip())]
    variables = [*_proxy_variable(model, defaults), _variable("NO_PROXY", ",".join(dict.fromkeys(exceptions)))]
    bundle = _ca_bundle(model, defaults)
    if bundle is not None:
        variables.append(_variable("CORRAL_CA_BUNDLE", f"{_CA_FOLDER}/{bundle[1]}"))
    if model.spec.source_secret_ref is not None:
        variables.append(_variable("CORRAL_SOURCE_SECRET", _SECRET_FOLDER))
    elif default_secret(model, defaults):
        variables.append(_variable("CORRAL_DEFAULT_SECRET", _SECRET_FOLDER))
    return variables


def puller_environment(model: Model, defaults: PullerDefaults, ranges: Sequence[str]) -> list[JsonObject]:
    """Return ``network_variables`` and the installation's additional variables, which replace them by name."""
    own = _has_own_network(model)
    more = [item for item in defaults.env if not (own and _has_credentials(item))]
    overrides = {str(item.get("name")) for item in more}
    return [*(item for item in network_variables(model, defaults, ranges) if item["name"] not in overrides), *more]


def _has_own_network(model: Model) -> bool:
    """Return whether the author of the Model chose who can read what its pods send."""
    proxy = model.spec.proxy
    return bool(proxy.https_proxy or proxy.https_proxy_secret_ref or proxy.ca_bundle)


def default_secret(model: Model, defaults: PullerDefaults) -> str:
    """Return the Secret that the installation names for the hosts of the Model's sources, empty without one."""
    if not defaults.credentials or _has_own_network(model):
        return ""
    sources = [parse_source(uri) for uri in remote_sources(model.spec)]
    hosts = {source_host(source) for source in sources if not isinstance(source, LocalSource)}
    secrets = {
        next((each.secret for each in defaults.credentials if matches_host(each.host, host)), "") for host in hosts
    }
    return secrets.pop() if len(secrets) == 1 else ""


def _has_credentials(variable: JsonObject) -> bool:
    """Return whether the variable may hold a credential: from another object, or by its name."""
    return "valueFrom" in variable or _CREDENTIALS.search(get_str(variable, "name").upper()) is not None


def network_volumes(model: Model, defaults: PullerDefaults) -> list[JsonObject]:
    """Return the volumes with certificate authorities and credentials."""
    volumes: list[JsonObject] = []
    bundle = _ca_bundle(model, defaults)
    if bundle is not None:
        volumes.append({"name": "ca", **bundle[0]})
    own, default = model.spec.source_secret_ref, default_secret(model, defaults)
    if own is not None:
        volumes.append({"name": "source", "secret": {"secretName": own["name"], "defaultMode": 0o440}})
    elif default:
        volumes.append({"name": "source", "secret": {"secretName": default, "defaultMode": 0o440, "optional": True}})
    return volumes


def network_mounts(model: Model, defaults: PullerDefaults) -> list[JsonObject]:
    """Return the mounts of ``network_volumes``; folders, so that a changed bundle is seen."""
    folders = {"ca": _CA_FOLDER, "source": _SECRET_FOLDER}
    names = [str(volume["name"]) for volume in network_volumes(model, defaults)]
    return [{"name": name, "mountPath": folders[name], "readOnly": True} for name in names]


def _variable(name: str, value: str) -> JsonObject:
    return {"name": name, "value": value.replace("$", "$$")}


def _proxy_variable(model: Model, defaults: PullerDefaults) -> list[JsonObject]:
    proxy = model.spec.proxy
    secret = proxy.https_proxy_secret_ref
    url, reference = proxy.https_proxy or "", (secret["name"], secret["key"]) if secret else None
    if not url and reference is None:
        url, reference = defaults.https_proxy, defaults.https_proxy_secret
    if reference is not None:
        key = {"name": reference[0], "key": reference[1]}
        return [{"name": "HTTPS_PROXY", "valueFrom": {"secretKeyRef": key}}]
    return [_variable("HTTPS_PROXY", url)] if url else []


def _ca_bundle(model: Model, defaults: PullerDefaults) -> tuple[JsonObject, str] | None:
    """Return the source of the volume and the key in it, None without a bundle."""
    bundle = model.spec.proxy.ca_bundle
    if bundle is None:
        config_map, secret, key = defaults.ca_config_map, defaults.ca_secret, defaults.ca_key
    else:
        config_map, secret, key = bundle.config_map_name or "", bundle.secret_name or "", bundle.key
    items = [{"key": key, "path": key}]
    if secret:
        return {"secret": {"secretName": secret, "items": items}}, key
    return ({"configMap": {"name": config_map, "items": items}}, key) if config_map else None
