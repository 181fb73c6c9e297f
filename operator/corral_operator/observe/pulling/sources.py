"""What is known of a Model's remote sources: from its status, an inspector and a puller.

- The snapshots of a claim that the operator created count while that very claim exists.
- The snapshots that a puller reports must be those of the pins in its manifest.
- A pulled version counts until the new one that a resolver has found is pulled as well.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from corral_core.base.timestamps import parse_timestamp
from corral_core.contracts.source_resolution import SourceResolution
from corral_core.model.model import Model
from corral_core.model.remote_sources import pulled_in_pod
from corral_core.sources.snapshot import snapshot_id
from corral_operator.observe.inspector import Inspector
from corral_operator.observe.objects import ModelObject
from corral_operator.observe.pulling.claims import ClaimObject, claim_name
from corral_operator.observe.pulling.image_volumes import mountable_image
from corral_operator.observe.pulling.puller import Puller


def known_source(
    item: ModelObject,
    inspectors: Collection[Inspector],
    pullers: Collection[Puller],
    *,
    claim: ClaimObject | None,
    image_volumes: bool = False,
) -> SourceResolution | None:
    """Return the resolution of the sources that the spec names now, None if it is not known yet.

    It has snapshots if they are on the claim that the spec names now; ``claim`` is that claim, None if it does not
    exist or does not belong to the Model. It has none if each runner pod pulls them, or with ``image_volumes`` mounts
    them.
    """
    resolved = item.resolution if item.resolved else _reported(item, inspectors)
    if resolved is None or item.model is None:
        return None
    newer = newer_resolution(item, inspectors)
    if newer is not None and newer.pins == resolved.pins:
        resolved, newer = replace(resolved, resolved_at=newer.resolved_at), None
    newest = newer or resolved
    if pulled_in_pod(item.model.spec) or (image_volumes and mountable_image(item.model, newest) is not None):
        return replace(newest, snapshots={}, claim="", claim_uid="")
    present = _located(resolved, item.model, pullers, claim=claim)
    if newer is None:
        return present
    found = _located(newer, item.model, pullers, claim=claim)
    return found if found.snapshots or not present.snapshots else present


def _located(
    resolved: SourceResolution, model: Model, pullers: Collection[Puller], *, claim: ClaimObject | None
) -> SourceResolution:
    """Return the resolution with the snapshots that are on the claim, or without any."""
    expected = expected_snapshots(resolved)
    name, own = claim_name(model), model.spec.cache.own_claim
    uid = claim.meta.uid if claim is not None and own else ""
    if resolved.snapshots == expected and resolved.claim == name and (not own or (uid and resolved.claim_uid == uid)):
        return resolved
    reported = [each.snapshots for each in pullers if not each.meta.deleted and each.claim_uid == uid]
    pulled = any(set(snapshots) == set(expected.values()) for snapshots in reported)
    if pulled and (uid or not own):
        return replace(resolved, snapshots=expected, claim=name, claim_uid=uid)
    return replace(resolved, snapshots={}, claim="", claim_uid="")


def newer_resolution(item: ModelObject, inspectors: Collection[Inspector]) -> SourceResolution | None:
    """Return what a resolver reported after the resolution in the status, None if the source is pinned."""
    known, model = item.resolution, item.model
    if known is None or model is None or not item.resolved or model.spec.update_policy == "Pinned":
        return None
    reported = _reported(item, inspectors)
    if reported is None:
        return None
    before, after = parse_timestamp(known.resolved_at), parse_timestamp(reported.resolved_at)
    return reported if after is not None and (before is None or after > before) else None


def expected_snapshots(resolved: SourceResolution) -> dict[str, str]:
    """Return the ids of the snapshots of all sources at their pins."""
    return {uri: snapshot_id(uri, pin) for uri, pin in resolved.pins.items()}


def _reported(item: ModelObject, inspectors: Collection[Inspector]) -> SourceResolution | None:
    """Return what an inspector of this spec reported."""
    for inspector in inspectors:
        report = inspector.report
        if report is None or report.resolved is None or not item.describes(report.metadata):
            continue
        pins = report.resolved.pins
        if item.model is not None and len(pins) == len(item.remote):
            uri = item.model.spec.source
            found = dict(zip(item.remote, pins, strict=True))
            return SourceResolution(
                uri,
                found,
                report.resolved.total,
                resolved_at=inspector.finished_at,
                image_path=report.resolved.image_path,
            )
    return None
