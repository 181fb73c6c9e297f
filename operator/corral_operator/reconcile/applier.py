"""Applier: makes the objects that a Model owns match their manifests, by server-side apply.

An object is written only if something differs from the last write: the manifest (the Model, the replicas or the
defaults changed), or the object (it was edited or deleted). The operator remembers its writes in memory alone, so after
a start each object is applied once; the API server then finds nothing to change unless something did.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from corral_core.base.errors import CorralError
from corral_core.base.json_fields import JsonObject, get_str
from corral_core.model.accelerator import vendor_of
from corral_core.model.model import Model
from corral_core.model.remote_sources import pulled_in_pod
from corral_core.planning.gpus.request import GpuRequest
from corral_kube.client import KubeClient
from corral_kube.errors import Conflict, KubeError, refusal
from corral_operator import logs
from corral_operator.config import RunnerDefaults
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.labels import owned_name, pull_policy_name
from corral_operator.observe.object_store import Tracked
from corral_operator.observe.objects import DeploymentObject, Meta, ModelObject, parse_meta
from corral_operator.observe.pod_failures import PodFailure, rejected_object
from corral_operator.reconcile import manifests
from corral_operator.reconcile.gpus.claim import gpu_claim
from corral_operator.reconcile.gpus.runtime_class import RuntimeClasses
from corral_operator.reconcile.planning.load_choice import choose_load
from corral_operator.reconcile.pulling.cluster_ranges import ClusterRanges
from corral_operator.reconcile.pulling.network_policy import puller_egress, puller_network_policy
from corral_operator.reconcile.rollouts import Rollouts

_PATHS: Mapping[Kind, Callable[[str, str], str]] = {
    Kind.DEPLOYMENTS: api_paths.deployments,
    Kind.SERVICES: api_paths.services,
    Kind.NETWORK_POLICIES: api_paths.network_policies,
}

_Applied = tuple[str, str, int]


INTERRUPT_GRACE = 10
"""Seconds that a runner has to exit after the eviction timeout, while the gateways end its streams with an error."""


class ObjectNotOwned(CorralError):
    """An object with the name of a Model's object exists and does not belong to the Model."""


class ObjectRejected(CorralError):
    """The API server refuses an object of the Model; ``failure`` is what the Model's conditions say."""

    def __init__(self, failure: PodFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class WeightsInspection(Protocol):
    """Makes the metadata of a Model's weights known; implemented by ``inspection.Inspection``."""

    async def reconcile(self, item: ModelObject) -> None: ...

    def forget(self, model: str) -> None: ...


class WeightsPulls(Protocol):
    """Brings the weights of remote sources onto a claim; implemented by ``pulling.pulls.Pulls``."""

    async def reconcile(self, item: ModelObject, *, wanted: bool) -> None: ...

    def forget(self, model: str) -> None: ...


class Applier:
    def __init__(
        self,
        kube: KubeClient,
        state: ClusterState,
        defaults: RunnerDefaults,
        inspection: WeightsInspection,
        *,
        pulls: WeightsPulls,
        rollouts: Rollouts,
    ) -> None:
        self._kube = kube
        self._state = state
        self._defaults = defaults
        self._inspection = inspection
        self._pulls = pulls
        self._rollouts = rollouts
        self._ranges = ClusterRanges(kube)
        self._runtime_classes = RuntimeClasses(kube)
        self._applied: dict[tuple[Kind, str], _Applied] = {}
        self._claim_templates: dict[str, str] = {}

    async def apply(self, item: ModelObject, replicas: int, *, pull: bool) -> None:
        """Apply everything that the Model owns. ``pull``: its remote sources are to be pulled now.

        The NetworkPolicies are the first, so that no pod starts without one, and the Deployment the second, since a
        request may wait for it. Raises KubeError, ObjectNotOwned or ObjectRejected.
        """
        model = item.model
        if model is None:
            return
        await self._apply_network_policies(item, model)
        deployment = await self._deployment(model, replicas)
        if deployment is not None:
            await self._apply_object(Kind.DEPLOYMENTS, deployment)
        await self._apply_object(Kind.SERVICES, manifests.service(model))
        await self._inspection.reconcile(item)
        await self._pulls.reconcile(item, wanted=pull)

    async def interrupt(self, model: str) -> None:
        """Shorten the grace period of the Model's terminating runners: they had their time. Raises KubeError.

        A pod that is not being deleted yet is left to its controller, which would replace it.
        """
        for pod in self._state.pods.of_model(model):
            if pod.finished or pod.deletion_grace is None or pod.deletion_grace <= INTERRUPT_GRACE:
                continue
            namespace, _, name = pod.meta.key.partition("/")
            logs.event("runner_interrupted", model=model, pod=name)
            await self._kube.delete(api_paths.pods(namespace, name), uid=pod.meta.uid, grace=INTERRUPT_GRACE)

    def forget(self, model: str) -> None:
        """Drop what is kept about a deleted Model; its objects are deleted by their owner references."""
        self._inspection.forget(model)
        self._pulls.forget(model)
        self._rollouts.forget(model)
        self._claim_templates.pop(model, None)
        namespace, _, name = model.partition("/")
        for key in [key for key in self._applied if key[1] in _keys(namespace, name)]:
            del self._applied[key]

    async def _deployment(self, model: Model, replicas: int) -> JsonObject | None:
        """Return the manifest; None if the Deployment stays as it is.

        While the metadata of the weights is not known or they are not pulled, no runner is started. Running ones are
        left, or all of them end: the template of the present spec must not reach them yet.
        While another Model is rolled by an upgrade, runners keep their template.
        """
        metadata = self._state.metadata(model.key)
        current = self._state.deployments.get(f"{model.namespace}/{owned_name(model.name)}")
        running = current is not None and current.replicas > 0
        if metadata is None and (replicas or not running):
            return None
        if not self._state.pulled(model.key) and running and replicas:
            return None
        kept = current if running and replicas else None
        load = choose_load(self._state, model, defaults=self._defaults, current=kept)
        starts = replicas > 0 and not running
        await self._apply_claim_template(model, load.gpus, starts=starts)
        manifest = manifests.deployment(
            model,
            replicas,
            defaults=await self._with_runtime_class(load.gpus, starts=starts),
            load=load,
            no_surge=self._state.replacement_blocked(model.key),
            source=self._state.source(model.key),
            ranges=await self._cluster_ranges(model, current),
            image=self._state.mounted_image(model.key),
        )
        return None if self._rollouts.postponed(current, manifest) else manifest

    async def _with_runtime_class(self, gpus: GpuRequest | None, *, starts: bool) -> RunnerDefaults:
        """Return the defaults with the RuntimeClass that the cluster has for the GPUs."""
        defaults = self._defaults
        if defaults.runtime_class is not None or gpus is None or vendor_of(gpus.resource) != "nvidia":
            return defaults
        return replace(defaults, runtime_class=await self._runtime_classes.nvidia(starts=starts))

    async def _apply_claim_template(self, model: Model, gpus: GpuRequest | None, *, starts: bool) -> None:
        """Apply the template of the claims that the runners have, if they have any.

        It is not watched, but applied again at each start, so that one that was deleted is made again.
        """
        claim = gpu_claim(model, gpus)
        if claim is not None and (starts or self._claim_templates.get(model.key) != claim.template):
            path = api_paths.claim_templates(model.namespace, claim.template)
            await self._write(path, manifests.gpu_claim_template(model, claim), known=True)
            self._claim_templates[model.key] = claim.template

    async def _cluster_ranges(self, model: Model, current: DeploymentObject | None) -> tuple[str, ...]:
        """Return the address ranges of the cluster for runner pods that pull; a new node replaces no runner."""
        if not pulled_in_pod(model.spec):
            return ()
        kept = current.ranges if current is not None and current.replicas else ()
        return kept or await self._ranges.get()

    async def _apply_network_policies(self, item: ModelObject, model: Model) -> None:
        """Apply the NetworkPolicies, and delete those of an earlier spec or setting."""
        defaults, runners, pullers = self._defaults, owned_name(model.name), pull_policy_name(model.name)
        wanted: dict[str, JsonObject] = {}
        if defaults.network_clients:
            egress = puller_egress(defaults.puller) if pulled_in_pod(model.spec) else ()
            wanted[runners] = manifests.network_policy(model, defaults.network_clients, egress=egress)
        if defaults.puller.clients and item.remote:
            wanted[pullers] = puller_network_policy(model, defaults.puller)
        for name in (runners, pullers):
            known = self._state.network_policies.get(f"{model.namespace}/{name}")
            if name in wanted:
                await self._apply_object(Kind.NETWORK_POLICIES, wanted[name])
            elif known is not None and not known.meta.deleted:
                await self._kube.delete(api_paths.network_policies(model.namespace, name), uid=known.meta.uid)

    async def _apply_object(self, kind: Kind, manifest: JsonObject) -> None:
        """Apply the manifest unless the object is as it was after the last write of the same manifest."""
        namespace, name = get_str(manifest, "metadata", "namespace"), get_str(manifest, "metadata", "name")
        key = f"{namespace}/{name}"
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        known = self._known(kind, key)
        if known is not None and self._applied.get((kind, key)) == (digest, *_revision(kind, known.meta)):
            return
        applied = await self._write(_PATHS[kind](namespace, name), manifest, known=known is not None)
        self._state.apply(kind, applied)
        self._applied[kind, key] = (digest, *_revision(kind, parse_meta(applied, "")))

    async def _write(self, path: str, manifest: JsonObject, *, known: bool) -> JsonObject:
        """Apply the manifest. A known object has the Model's label; the fields of an unknown one's owner stay."""
        name = get_str(manifest, "metadata", "name")
        try:
            return await self._kube.apply(path, manifest, force=known)
        except Conflict as error:
            if known:
                raise
            raise ObjectNotOwned(f"{name} exists already and does not belong to this Model: {error}") from error
        except KubeError as error:
            message = refusal(error)
            if message is None:
                raise
            raise ObjectRejected(rejected_object(get_str(manifest, "kind"), message)) from error

    def _known(self, kind: Kind, key: str) -> Tracked | None:
        if kind is Kind.DEPLOYMENTS:
            return self._state.deployments.get(key)
        return self._state.services.get(key) if kind is Kind.SERVICES else self._state.network_policies.get(key)


def _keys(namespace: str, model: str) -> tuple[str, str]:
    """Return the keys of the objects of a Model."""
    return f"{namespace}/{owned_name(model)}", f"{namespace}/{pull_policy_name(model)}"


def _revision(kind: Kind, meta: Meta) -> tuple[str, int]:
    """Return what changes with each edit: a Deployment's generation, since its controller writes its status often."""
    return meta.uid, meta.generation if kind is Kind.DEPLOYMENTS else meta.version
