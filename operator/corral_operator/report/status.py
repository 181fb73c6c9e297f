"""Status of a Model: a pure function of its view and the time.

``demand`` belongs to the gateways and is never written here. While the Model has no runner, the metadata and the
placement that the last one reported are kept.
"""

from __future__ import annotations

from dataclasses import replace

from corral_core.base.durations import format_duration
from corral_core.base.json_fields import JsonObject, get_object, get_objects, get_str
from corral_core.base.timestamps import format_time
from corral_core.contracts.model_metadata import ModelMetadata
from corral_operator.observe.labels import runner_selector
from corral_operator.observe.objects import ModelObject
from corral_operator.report.columns import columns
from corral_operator.report.conditions import conditions, not_reconciled
from corral_operator.report.phases import phase
from corral_operator.report.placement import placement
from corral_operator.report.pulls import pull_fields
from corral_operator.report.readiness import RECONCILING, STALLED
from corral_operator.report.view import ModelView

OPERATOR_FIELDS = (
    "phase",
    "operator",
    "observedGeneration",
    "conditions",
    "replicas",
    "readyReplicas",
    "selector",
    "source",
    "pull",
    "model",
    "placement",
    "expiresAt",
    "idleSince",
    "keepAlive",
    "pending",
    "columns",
)
"""The fields of the status that the operator owns."""


SECOND_INSTALLATION = "SecondInstallation"
"""Type of the condition that another installation of the operator writes (``process.other_installations``)."""


def model_status(view: ModelView, now: float) -> dict[str, object]:
    """Return the operator's fields; those without a value are left out."""
    old = view.item.status
    metadata = _metadata(view)
    optional: dict[str, object] = {
        **_pull_fields(view),
        "model": metadata.to_json() if metadata else dict(get_object(old, "model")),
        "placement": placement(view),
        **_usage_fields(view),
    }
    return {
        "phase": phase(view),
        "observedGeneration": view.item.meta.generation,
        "conditions": [condition.to_json(view.item, now) for condition in conditions(view)],
        "replicas": len(view.staying),
        "readyReplicas": view.ready,
        "pending": view.pending,
        "columns": columns(view),
        "selector": ",".join(f"{key}={value}" for key, value in sorted(runner_selector(view.item.name).items())),
        **{name: value for name, value in optional.items() if value},
    }


def failed_status(item: ModelObject, error: str, now: float) -> dict[str, object]:
    """Return the operator's fields as they are, with the condition that the Model cannot be reconciled."""
    kept = {name: item.status[name] for name in OPERATOR_FIELDS if name in item.status}
    left_out = (RECONCILING, STALLED, SECOND_INSTALLATION)
    others = [dict(one) for one in get_objects(item.status, "conditions") if get_str(one, "type") not in left_out]
    return {**kept, "conditions": [*others, not_reconciled(error).to_json(item, now)]}


def changed_fields(old: JsonObject, new: JsonObject) -> set[str]:
    """Return the operator's fields in which two statuses differ."""
    if "conditions" in old:
        own = [one for one in get_objects(old, "conditions") if get_str(one, "type") != SECOND_INSTALLATION]
        old = {**old, "conditions": own}
    return {name for name in OPERATOR_FIELDS if old.get(name) != new.get(name)}


def _usage_fields(view: ModelView) -> dict[str, object]:
    usage = view.usage
    return {
        "expiresAt": format_time(usage.expires_at) if usage.expires_at is not None else None,
        "idleSince": format_time(usage.idle_since) if usage.idle_since is not None else None,
        "keepAlive": format_duration(usage.keep_alive) if usage.keep_alive is not None else None,
    }


def _pull_fields(view: ModelView) -> dict[str, object]:
    """Return ``source`` and ``pull``. While an edited source is not resolved, the pins of the others are kept."""
    if view.pull is None:
        return {}
    source = view.pull.source
    kept = source.to_json() if source is not None else dict(get_object(view.item.status, "source"))
    return {"source": kept, "pull": pull_fields(view.pull)}


def _metadata(view: ModelView) -> ModelMetadata | None:
    """Prefer the metadata of a loaded runner, which has the most fields, unless it serves other weights.

    The dimensions stay: only an inspector plans compute buffers, and another estimate would replace the runner.
    """
    if view.pull is not None and view.pull.replaced and view.metadata is not None:
        return view.metadata
    if view.info is not None and (view.metadata is None or view.item.describes(view.info.metadata)):
        known = view.metadata.dimensions if view.metadata is not None else None
        return replace(view.info.metadata, dimensions=known or view.info.metadata.dimensions)
    return view.metadata
