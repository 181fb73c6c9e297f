"""Manifest of the PersistentVolumeClaim that the operator creates for a Model's pulled weights."""

from __future__ import annotations

from corral_core.base.json_fields import JsonObject
from corral_core.model.model import Model
from corral_operator.observe.labels import MODEL_LABEL, component_labels
from corral_operator.observe.pulling.claims import claim_name
from corral_operator.reconcile.manifests import owner_reference
from corral_operator.reconcile.store_volume import size_quantity


def claim(model: Model, size: int) -> JsonObject:
    """Return the claim of at least ``size`` bytes. It is deleted with the Model unless ``retain`` is set."""
    cache = model.spec.cache
    optional = {} if cache.storage_class_name is None else {"storageClassName": cache.storage_class_name}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim_name(model),
            "namespace": model.namespace,
            "labels": {MODEL_LABEL: model.name, **component_labels(model.name, "store")},
            "ownerReferences": [] if cache.retain else [owner_reference(model)],
        },
        "spec": {
            "accessModes": list(cache.access_modes),
            "resources": {"requests": {"storage": size_quantity(size)}},
            **optional,
        },
    }
