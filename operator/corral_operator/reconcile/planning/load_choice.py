"""Choice of how a Model's runners load: GPUs or CPU and the parallel requests, the best way that some node can run.

- The ways are those of ``gpus.alternatives``. Nodes count when a runner is to be started; a running one keeps its load
  config and its GPUs, so that no node that joins or leaves, and no label, rolls a Model.
- With ``contextPolicy: Grow`` the context becomes longer when a pending request asks for more, as far as it fits on as
  many GPUs as the runner has, with no layer less on them. It stays so until the runner is unloaded, so it never becomes
  shorter for one client and longer for another.
- What was chosen is in an annotation of the Deployment, so that a restarted operator keeps it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.model.model import Model
from corral_core.planning.dra_offers import CLAIMED_MEMORY, with_claimed_memory
from corral_core.planning.gpus.request import GpuRequest
from corral_core.planning.node import Node, PodRequirements, pod_requirements
from corral_core.planning.node_fit import could_ever_run
from corral_core.weights.load_config import growth_lengths
from corral_core.weights.memory_estimate import MemoryEstimate
from corral_operator.config import RunnerDefaults
from corral_operator.observe.cluster_state import ClusterState
from corral_operator.observe.objects import DeploymentObject
from corral_operator.reconcile.gpus.alternatives import (
    Alternative,
    WeightsLoad,
    alternatives,
    gpu_spec_digest,
    requested_as_given,
)
from corral_operator.reconcile.gpus.claim import gpu_claim
from corral_operator.reconcile.planning.planner_input import possible_nodes
from corral_operator.reconcile.planning.weights_load import weights_load
from corral_operator.reconcile.resources import memory_limit
from corral_operator.reconcile.runner_pod import pod_spec
from corral_operator.report.load import LoadChoice

_MAX_NOTES = 6
"""Reasons against better ways that the status lists."""


def choose_load(
    state: ClusterState, model: Model, *, defaults: RunnerDefaults, current: DeploymentObject | None
) -> LoadChoice:
    """Choose how runners of the Model load. ``current`` is the Deployment of running ones, which keep their way."""
    metadata = state.metadata(model.key)
    if metadata is None or metadata.dimensions is None:
        return LoadChoice(None, requested_as_given(model.spec.gpu))
    return _Chooser(state, model, metadata, defaults=defaults).choose(current)


class _Chooser:
    def __init__(self, state: ClusterState, model: Model, metadata: ModelMetadata, *, defaults: RunnerDefaults) -> None:
        self._state, self._model, self._defaults = state, model, defaults
        self._source = state.source(model.key)
        self._nodes: Sequence[Node] = possible_nodes(state)
        self._offers = frozenset(
            offer
            for offer in frozenset(offer for node in self._nodes for offer in node.gpus)
            if model.spec.pod.image is not None or defaults.image_for(offer.resource) is not None
        )
        self._metadata = metadata
        self._load = self._weights_load()

    def _weights_load(self, passed: int = 0) -> WeightsLoad:
        resource = self._settings_resource()
        return weights_load(self._model, self._metadata, self._defaults, resource=resource, passed=passed)

    def _settings_resource(self) -> str | None:
        """Return the resource by whose vendor the installation's variables hold before the GPUs are chosen."""
        gpu = self._model.spec.gpu
        if gpu.on_cpu:
            return None
        if gpu.resource is not None or gpu.fixed_count:
            return gpu.known_resource
        return min((offer.resource for offer in self._offers), default=None)

    def choose(self, current: DeploymentObject | None) -> LoadChoice:
        kept = self._kept(current) if current is not None else None
        base = kept or self._best(self._load)[0]
        return self._grown(base) if self._model.spec.context_policy == "Grow" else base

    def _grown(self, base: LoadChoice) -> LoadChoice:
        """Return the choice with the context that pending requests ask for, and the longest that there can be."""
        if base.estimate is None:
            return base
        length = longest = base.estimate.load_config.context_length
        wanted, found = self._state.demand_tracker.context_length(self._model.key), base
        for longer in growth_lengths(self._model.spec, self._metadata, length):
            choice, fits = self._best(self._weights_load(longer))
            if not fits or _on_gpus(choice) != _on_gpus(base):
                break
            longest = longer
            if length < wanted:
                length, found = longer, choice
        return replace(found, max_context_length=longest)

    def _best(self, load: WeightsLoad) -> tuple[LoadChoice, bool]:
        """Return the best way, and whether some node could ever run it."""
        notes = [] if self._nodes else ["the operator does not see the nodes"]
        last: Alternative | None = None
        found = alternatives(self._model.spec.gpu, load, self._offers, spread=self._defaults.spread)
        for each in found:
            if isinstance(each, str):
                notes.append(each)
                continue
            last, problem = each, self._problem(each)
            if not problem:
                return _choice(each, notes), True
            notes.append(f"not {each.why}: {problem}")
        if last is None:
            raise AssertionError("there is always an alternative")
        return _choice(last, notes), False

    def _problem(self, each: Alternative) -> str:
        """Return why no pod of this kind can run; empty if one can."""
        limit = memory_limit(self._model, each.gpus, defaults=self._defaults)
        if limit is not None and each.estimate.total > limit:
            return "the memory limit of the pod is lower"
        if not self._nodes or self._could_run(self._requirements(each.estimate, each.gpus)):
            return ""
        return "no node that admits the pod has all of it"

    def _kept(self, current: DeploymentObject) -> LoadChoice | None:
        """Return the way of the running pods, while one of them has a node or some node could run them."""
        gpu, request = self._model.spec.gpu, current.gpus
        allowed = (
            not gpu.fixed_count and gpu.offload != "full" if request is None else request.spec == gpu_spec_digest(gpu)
        )
        passed = current.context_passed
        grown = passed and all(
            config.context_length != passed for _, configs in self._load.longer for config in configs
        )
        load = self._weights_load(passed) if grown else self._load
        for estimate in load.kept(request, 0 if grown else passed) if allowed else ():
            if self._requirements(estimate, request) != current.requirements:
                continue
            if not self._nodes or self._scheduled() or self._could_run(current.requirements):
                return LoadChoice(estimate, request, current.why)
        return None

    def _scheduled(self) -> bool:
        pods = self._state.pods.of_model(self._model.key)
        return any(pod.scheduled and not pod.meta.deleted and not pod.finished for pod in pods)

    def _could_run(self, requirements: PodRequirements) -> bool:
        return any(could_ever_run(node, requirements) for node in self._nodes)

    def _requirements(self, estimate: MemoryEstimate, gpus: GpuRequest | None) -> PodRequirements:
        spec = pod_spec(self._model, estimate, defaults=self._defaults, gpus=gpus, source=self._source)
        claim = gpu_claim(self._model, gpus)
        plain = pod_requirements(spec, gpu_memory=gpus.memory if gpus is not None else 0)
        return with_claimed_memory(plain, {CLAIMED_MEMORY: claim.total} if claim is not None else {})


def _on_gpus(choice: LoadChoice) -> tuple[int, bool]:
    """Return the number of GPUs, and whether all of the model is on them."""
    return (choice.gpus.count, choice.gpus.capacity == 0) if choice.gpus is not None else (0, False)


def _choice(chosen: Alternative, notes: Sequence[str]) -> LoadChoice:
    left_out = [f"{len(notes) - _MAX_NOTES} more"] if len(notes) > _MAX_NOTES else []
    why = "; ".join([chosen.why, *notes[:_MAX_NOTES], *left_out])
    return LoadChoice(chosen.estimate, chosen.gpus, why)
