"""Manifest of the puller pod, which pulls the pinned sources of a Model into its store.

What it pulls and how is in the digest of its annotation; a change of anything else of the Model, such as its system
prompt, replaces no puller.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from corral_core.base.json_fields import JsonObject
from corral_core.contracts.source_resolution import SourceResolution
from corral_core.model.model import Model
from corral_operator.config import RunnerDefaults
from corral_operator.observe.labels import (
    MODEL_LABEL,
    NAME_LABEL,
    PULLER,
    PULLER_CONTAINER,
    component_labels,
    owned_name,
)
from corral_operator.observe.pulling.puller import AFFINITY_ANNOTATION, CLAIM_ANNOTATION, DIGEST_ANNOTATION
from corral_operator.observe.streams.pod_streams import RUNNER_PORT
from corral_operator.reconcile.manifests import owner_reference
from corral_operator.reconcile.runner_pod import base_spec
from corral_operator.reconcile.source_access.network import network_volumes
from corral_operator.reconcile.source_access.puller_container import puller_container, puller_mounts
from corral_operator.reconcile.store_volume import store_volumes


def puller_pod(
    model: Model,
    source: SourceResolution,
    *,
    defaults: RunnerDefaults,
    claim_uid: str = "",
    ranges: Sequence[str] = (),
    affinity: JsonObject | None = None,
    kept: Sequence[str] | None = None,
) -> JsonObject:
    """Return the pod.

    ``claim_uid`` identifies the claim. What follows depends on the moment, and is no part of the digest: the address
    ``ranges`` of the cluster, the ``affinity`` if it is another one than the Model's, and the snapshots that are
    ``kept`` on the claim besides those of the source, None to keep all.
    """
    digest_of = [_spec(model, source, {}, defaults=defaults, ranges=()), claim_uid]
    digest = hashlib.sha256(json.dumps(digest_of, sort_keys=True).encode()).hexdigest()
    keep = {} if kept is None else {"CORRAL_KEEP_SNAPSHOTS": ",".join(sorted(kept))}
    spec = _spec(model, source, keep, defaults=defaults, ranges=ranges)
    if affinity is not None:
        spec = {**spec, "affinity": affinity}
    metadata = {
        "name": f"{owned_name(model.name)}-pull",
        "namespace": model.namespace,
        "labels": {
            **model.spec.pod.labels,
            NAME_LABEL: PULLER,
            MODEL_LABEL: model.name,
            **component_labels(model.name, PULLER_CONTAINER),
        },
        "annotations": {
            **model.spec.pod.annotations,
            DIGEST_ANNOTATION: digest,
            CLAIM_ANNOTATION: claim_uid,
            AFFINITY_ANNOTATION: affinity_digest(affinity),
        },
        "ownerReferences": [owner_reference(model)],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def affinity_digest(affinity: JsonObject | None) -> str:
    """Return the digest of an affinity that the operator chose, empty for that of the Model."""
    return "" if affinity is None else hashlib.sha256(json.dumps(affinity, sort_keys=True).encode()).hexdigest()


def _spec(
    model: Model, source: SourceResolution, more: Mapping[str, str], *, defaults: RunnerDefaults, ranges: Sequence[str]
) -> dict[str, object]:
    network = defaults.puller
    container = {
        **puller_container(model, source, more, defaults=defaults, ranges=ranges),
        "ports": [{"name": "http", "containerPort": RUNNER_PORT, "protocol": "TCP"}],
    }
    base = base_spec(
        model,
        container,
        defaults=defaults,
        volumes=[*store_volumes(model, source.total, read_only=False), *network_volumes(model, network)],
        mounts=puller_mounts(model, network),
    )
    return {**base, "restartPolicy": "OnFailure", "terminationGracePeriodSeconds": 10}
