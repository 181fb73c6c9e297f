"""``status.columns``: texts for the columns of ``kubectl get models`` that the API server cannot form itself.

A column of a CRD is the value of one field: it joins no two fields and knows no units.
"""

from __future__ import annotations

from corral_core.base.quantities import format_size
from corral_operator.report.pulls import pull_fields
from corral_operator.report.view import ModelView


def columns(view: ModelView) -> dict[str, str]:
    """Return ``replicas`` as ready/wanted, and ``size`` and ``pulled`` of the weights if they are known."""
    wanted = view.decision.replicas if view.decision is not None else 0
    texts = {"replicas": f"{view.ready}/{wanted}"}
    if view.metadata is not None and view.metadata.size:
        texts["size"] = format_size(view.metadata.size)
    pulled = _pulled(view)
    return {**texts, "pulled": pulled} if pulled else texts


def _pulled(view: ModelView) -> str:
    """Return the part that is pulled, "" if that is not known or nothing is pulled before a runner starts."""
    pull = view.pull
    if pull is None or pull.mounted is not None:
        return ""
    running = pull_fields(pull).get("completed")
    if running is not None:
        return str(running)
    if pull.in_pods and not view.staying:
        return ""
    return "100%" if pull.pulled else "0%"
