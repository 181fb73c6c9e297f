"""NetworkPolicy of a Model's resolver and puller, and what pods that pull may reach."""

from __future__ import annotations

from corral_core.base.json_fields import JsonObject
from corral_core.model.model import Model
from corral_operator.config import PullerDefaults
from corral_operator.observe.labels import MODEL_LABEL, NAME_LABEL, PULLER, RESOLVER, component_labels, pull_policy_name
from corral_operator.observe.streams.pod_streams import RUNNER_PORT
from corral_operator.reconcile.manifests import owner_reference

_METADATA_ADDRESSES = {"0.0.0.0/0": ["169.254.0.0/16"], "::/0": ["fe80::/10", "fd00:ec2::254/128"]}
"""Destinations of pullers, without the link-local addresses at which clouds give credentials of the node."""


def puller_network_policy(model: Model, defaults: PullerDefaults) -> JsonObject:
    """Return the NetworkPolicy of the Model's resolver and puller.

    ``defaults.clients`` may connect to the port of the progress.
    """
    pods = {
        "matchLabels": {MODEL_LABEL: model.name},
        "matchExpressions": [{"key": NAME_LABEL, "operator": "In", "values": [PULLER, RESOLVER]}],
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": pull_policy_name(model.name),
            "namespace": model.namespace,
            "labels": {MODEL_LABEL: model.name, **component_labels(model.name, "puller")},
            "ownerReferences": [owner_reference(model)],
        },
        "spec": {
            "podSelector": pods,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [{"port": RUNNER_PORT, "protocol": "TCP"}], "from": list(defaults.clients)}],
            "egress": puller_egress(defaults),
        },
    }


def puller_egress(defaults: PullerDefaults) -> list[JsonObject]:
    """Return the rules by which pods that pull reach name servers, every address but the link-local ones, and
    ``defaults.destinations``.
    """
    blocks = [{"ipBlock": {"cidr": cidr, "except": left_out}} for cidr, left_out in _METADATA_ADDRESSES.items()]
    name_servers = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    return [{"ports": name_servers}, {"to": [*blocks, *defaults.destinations]}]
