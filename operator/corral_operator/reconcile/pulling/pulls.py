"""Pulls: a claim and a puller pod for every Model whose remote sources are not pulled, a bounded number at once.

- Whether a Model needs a puller follows from the Model, its status and its claim (``task_pods``). A source that is
  edited is pulled while runners of the earlier one serve; a claim that is deleted is created and filled again.
- A new version of a pulled source is pulled beside it, and the pulled one stays on the claim until then.
- The status gets the snapshots first; only then is the pod that pulled them deleted.
- An existing claim only grows. One that does not belong to the Model is never used.
- Weights that are pulled in the runner pods (``cache.type: ephemeral``) need neither, and so does an image that they
  mount, which the kubelet pulls.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from corral_core.base.clock import steady_time
from corral_core.base.json_fields import JsonObject, get_str
from corral_core.contracts.source_resolution import SourceResolution
from corral_core.model.model import Model
from corral_core.model.remote_sources import pulled_in_pod
from corral_kube.client import KubeClient
from corral_kube.errors import Conflict, KubeError, NotFound, refusal
from corral_operator import logs
from corral_operator.config import RunnerDefaults
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.labels import MODEL_LABEL
from corral_operator.observe.objects import ModelObject
from corral_operator.observe.pod_failures import PodFailure, rejected_object
from corral_operator.observe.pulling.claims import ClaimObject, claim_name
from corral_operator.observe.pulling.puller import DIGEST_ANNOTATION, Puller
from corral_operator.observe.pulling.sources import expected_snapshots
from corral_operator.reconcile.pulling.claim_manifest import claim
from corral_operator.reconcile.pulling.cluster_ranges import ClusterRanges
from corral_operator.reconcile.pulling.placement import puller_affinity
from corral_operator.reconcile.pulling.puller_pod import affinity_digest, puller_pod
from corral_operator.reconcile.pulling.task_pods import RETRY_INTERVAL, TaskPods
from corral_operator.reconcile.store_volume import store_size


class Pulls:
    """``requeue(key, delay)`` reconciles the Model again after ``delay`` seconds."""

    def __init__(
        self,
        kube: KubeClient,
        state: ClusterState,
        defaults: RunnerDefaults,
        *,
        requeue: Callable[[str, float], None],
        clock: Callable[[], float] = steady_time,
    ) -> None:
        self._kube = kube
        self._state = state
        self._defaults = defaults
        self._requeue = requeue
        self._ranges = ClusterRanges(kube, clock=clock)
        self._claim_failures: dict[str, PodFailure] = {}
        self._applied: dict[str, tuple[str, str]] = {}
        self._pods: TaskPods[Puller] = TaskPods(
            "puller",
            kube,
            state,
            pods=state.pullers,
            failures=state.pull_failures,
            limit=defaults.puller.limit,
            requeue=requeue,
            completed=self._completed,
            clock=clock,
        )

    async def reconcile(self, item: ModelObject, *, wanted: bool) -> None:
        """Keep one puller while the sources are to be pulled, and none otherwise. Raises KubeError.

        ``wanted``: they are to be pulled now.
        """
        key, model, source = item.meta.key, item.model, self._state.source(item.meta.key)
        self._claim_failures.pop(key, None)
        digest, uid = None, ""
        if model is not None and source is not None and item.inspected and not self._left_to_runners(model):
            recorded = bool(source.snapshots) and item.resolution == source
            update = self._state.update(key) if recorded and wanted else None
            source = update or source
            ready = (wanted or recorded) and await self._ensure_claim(model, source)
            uid = self._claim_uid(model)
            # A source that is pulled needs no puller; one that reported it stays until the status has the snapshots.
            needed = any(self._state.pullers.of_model(key)) and not recorded if source.snapshots else ready
            if needed and not self._misplaced(model):
                digest = self._digest(model, source, uid)

        async def manifest() -> JsonObject:
            assert model is not None, "a Model without a valid spec has no puller"
            assert source is not None, "only resolved sources are pulled"
            return await self._manifest(model, source, uid)

        await self._pods.reconcile(item, digest, manifest)
        if key in self._claim_failures:
            self._state.pull_failures[key] = self._claim_failures[key]

    def _left_to_runners(self, model: Model) -> bool:
        return pulled_in_pod(model.spec) or self._state.mounted_image(model.key) is not None

    def pending(self, model: str) -> bool:
        """Return whether the pull of the Model waits for the end of others."""
        return self._pods.pending(model)

    def forget(self, model: str) -> None:
        """Drop what is kept about a deleted Model."""
        self._claim_failures.pop(model, None)
        self._applied.pop(model, None)
        self._pods.forget(model)

    def _digest(self, model: Model, source: SourceResolution, uid: str) -> str:
        pod = puller_pod(model, _without_snapshots(source), defaults=self._defaults, claim_uid=uid)
        return get_str(pod, "metadata", "annotations", DIGEST_ANNOTATION)

    async def _manifest(self, model: Model, source: SourceResolution, uid: str) -> JsonObject:
        own = model.spec.cache.own_claim
        return puller_pod(
            model,
            _without_snapshots(source),
            defaults=self._defaults,
            claim_uid=uid,
            ranges=await self._ranges.get(),
            affinity=self._affinity(model),
            kept=[snapshot for each in self._in_use(model) for snapshot in each] if own else None,
        )

    def _affinity(self, model: Model) -> JsonObject | None:
        known = self._known_claim(model)
        return puller_affinity(self._state, model, bound=known is not None and known.bound)

    def _misplaced(self, model: Model) -> bool:
        """Return whether the puller cannot be scheduled, and another node affinity is right now."""
        puller = self._state.puller(model.key)
        if puller is None or puller.pod.scheduled or puller.pod.failure is None:
            return False
        return puller.affinity != affinity_digest(self._affinity(model))

    def _completed(self, uid: str) -> int:
        status = self._state.pull_statuses.get(uid)
        return status.completed if status is not None else 0

    def _known_claim(self, model: Model) -> ClaimObject | None:
        known = self._state.claims.get(f"{model.namespace}/{claim_name(model)}")
        return None if known is None or known.meta.model != model.key else known

    def _claim_uid(self, model: Model) -> str:
        known = self._known_claim(model)
        return known.meta.uid if known is not None and model.spec.cache.own_claim else ""

    async def _ensure_claim(self, model: Model, source: SourceResolution) -> bool:
        """Create the Model's own claim, or let it grow; return whether the puller can use it. Raises KubeError."""
        if not model.spec.cache.own_claim:
            return True
        known = self._known_claim(model)
        if known is not None and known.meta.deleted:
            return False
        target = frozenset(expected_snapshots(source).values())
        in_use = sum(size for snapshots, size in self._in_use(model).items() if snapshots != target)
        needed = store_size(model, source.total, in_use=in_use)
        manifest = claim(model, max(needed, known.requested if known is not None else 0))
        if known is not None and self._applied.get(model.key) == (str(manifest), known.meta.uid):
            return True
        try:
            written = await self._write_claim(model, manifest, new=known is None)
        except Conflict:
            text = f"the PersistentVolumeClaim {claim_name(model)} exists already and does not belong to this Model"
            self._rejected(model.key, PodFailure("ClaimNotOwned", f"{text}: delete it, or rename the Model", "Failed"))
            return False
        except KubeError as error:
            message = refusal(error)
            if message is None:
                raise
            self._rejected(model.key, rejected_object("PersistentVolumeClaim", message))
            return False
        self._state.apply(Kind.CLAIMS, written)
        self._applied[model.key] = str(manifest), get_str(written, "metadata", "uid")
        return True

    async def _write_claim(self, model: Model, manifest: JsonObject, *, new: bool) -> JsonObject:
        """Apply the claim. Raises KubeError, Conflict if another owner has one of this name."""
        path = api_paths.claims(model.namespace, claim_name(model))
        if new:
            try:
                found = await self._kube.get(path)
            except NotFound:
                found = {}
            if found and get_str(found, "metadata", "labels", MODEL_LABEL) != model.name:
                raise Conflict(path)
        return await self._kube.apply(path, manifest, force=not new)

    def _in_use(self, model: Model) -> dict[frozenset[str], int]:
        """Return the snapshots on the claim that runners use, or the next one will, with their bytes."""
        source = self._state.source(model.key)
        serving = [each for each in self._state.deployments.of_model(model.key) if each.replicas]
        pulled = {frozenset(source.snapshots.values()): source.total} if source is not None and source.snapshots else {}
        return {frozenset(each.snapshots): each.pulled_bytes for each in serving} | pulled

    def _rejected(self, key: str, failure: PodFailure) -> None:
        if self._claim_failures.get(key) != failure:
            logs.event("claim_rejected", level=logging.WARNING, model=key, error=failure.message)
        self._claim_failures[key] = failure
        self._requeue(key, RETRY_INTERVAL)


def _without_snapshots(source: SourceResolution) -> SourceResolution:
    return SourceResolution(source.uri, source.pins, source.total)
